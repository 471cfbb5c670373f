// A Micro-Manager camera that plays a known movie at an exact rate, with faults on request.
//
// The movie is a file of raw frames, one behind the other. Every sequence begins at its first frame, and each
// frame leaves at its own time on a steady clock, however late the one before it was: so what arrives, when
// and in which order is known beforehand. With Loop it begins anew at its end, for hours out of a minute.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "CameraImageMetadata.h"
#include "DeviceBase.h"
#include "ModuleInterface.h"

namespace {

const char* const kName = "ReplayCamera";
const int kNoMovie = 101;
const int kBroken = 102;
const int kRefused = 103;

using Clock = std::chrono::steady_clock;

}  // namespace

class ReplayCamera : public CCameraBase<ReplayCamera> {
 public:
  ReplayCamera() {
    InitializeDefaultErrorMessages();
    SetErrorText(kNoMovie, "The movie to replay cannot be read");
    SetErrorText(kBroken, "The camera was pulled out");
    Text("Movie", "", true);
    Whole("Width", 1376, true);
    Whole("Height", 1096, true);
    Text("PixelType", "8bit", true);  // 8bit, 16bit, 32bitRGB
    Text("Refuses", "", true);        // in these words, to be initialized
    // Faults, in frames from the start of a sequence; -1: never.
    Text("LostInCamera", "", false);    // "5 9-12": never handed to Micro-Manager
    Whole("EndsAfter", -1, false);      // ends its own sequence
    Whole("SilentAfter", -1, false);    // goes on "capturing", and sends nothing
    Whole("BreaksAfter", -1, false);    // ends with an error, and every call to it fails from then on
    Whole("HangsAfter", -1, false);     // sends nothing more, and stopping it takes HangSeconds
    Whole("HangSeconds", 20, false);
    Whole("StartHangs", 0, false);      // 1: starting it takes HangSeconds
    Whole("WrongAfter", -1, false);     // hands over a frame of another size, which the core refuses: it ends
    Text("Mark", "", false);            // a file that is made in the moment of the fault
    Text("Times", "ms", false);         // how ElapsedTime-ms is said: see Said
    Text("ClockSteps", "", false);      // "2:0:3600000": in the 2nd sequence, from frame 0 on, so many ms more
    Whole("FirstLate", 0, false);       // ms that a sequence's first frame comes later
    Whole("Chunk", 0, false);           // 1: each frame has the camera's own time, in ns, too
    Whole("Loop", 0, false);
    CreateProperty("FrameRate", "60", MM::Float, false);
    CreateProperty(MM::g_Keyword_Binning, "1", MM::Integer, false);
    AddAllowedValue(MM::g_Keyword_Binning, "1");
    CreateProperty(MM::g_Keyword_Exposure, "2.2", MM::Float, false);
  }
  ~ReplayCamera() override { Shutdown(); }

  int Initialize() override {
    const std::string refuses = AsText("Refuses");
    if (!refuses.empty()) {
      SetErrorText(kRefused, refuses.c_str());
      return kRefused;
    }
    width_ = AsLong("Width");
    height_ = AsLong("Height");
    const std::string type = AsText("PixelType");
    bytes_ = type == "16bit" ? 2 : type == "32bitRGB" ? 4 : 1;
    std::ifstream file(AsText("Movie"), std::ios::binary | std::ios::ate);
    if (!file) return kNoMovie;
    movie_.resize(static_cast<size_t>(file.tellg()));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(movie_.data()), static_cast<std::streamsize>(movie_.size()));
    frames_ = static_cast<long>(movie_.size() / FrameBytes());
    return file && frames_ > 0 ? DEVICE_OK : kNoMovie;
  }
  int Shutdown() override { return StopSequenceAcquisition(); }
  void GetName(char* name) const override { CDeviceUtils::CopyLimitedString(name, kName); }
  bool Busy() override { return false; }

  int SnapImage() override { return broken_ ? kBroken : DEVICE_OK; }
  const unsigned char* GetImageBuffer() override { return movie_.data(); }
  unsigned GetImageWidth() const override { return static_cast<unsigned>(width_); }
  unsigned GetImageHeight() const override { return static_cast<unsigned>(height_); }
  unsigned GetImageBytesPerPixel() const override { return static_cast<unsigned>(bytes_); }
  unsigned GetNumberOfComponents() const override { return bytes_ == 4 ? 4 : 1; }
  unsigned GetBitDepth() const override { return bytes_ == 2 ? 12 : 8; }
  long GetImageBufferSize() const override { return static_cast<long>(FrameBytes()); }
  double GetExposure() const override { return 2.2; }
  void SetExposure(double) override {}
  int SetROI(unsigned, unsigned, unsigned, unsigned) override { return DEVICE_UNSUPPORTED_COMMAND; }
  int GetROI(unsigned& x, unsigned& y, unsigned& w, unsigned& h) override {
    x = y = 0;
    w = GetImageWidth();
    h = GetImageHeight();
    return DEVICE_OK;
  }
  int ClearROI() override { return DEVICE_OK; }
  int GetBinning() const override { return 1; }
  int SetBinning(int) override { return DEVICE_OK; }
  int IsExposureSequenceable(bool& can) const override {
    can = false;
    return DEVICE_OK;
  }

  int StartSequenceAcquisition(double) override { return StartSequenceAcquisition(frames_, 0, false); }
  int StartSequenceAcquisition(long, double, bool) override {
    if (broken_) return kBroken;
    if (running_) return DEVICE_CAMERA_BUSY_ACQUIRING;
    if (player_.joinable()) player_.join();
    if (AsLong("StartHangs") != 0) {
      std::ofstream(AsText("Mark")).put('!');
      std::this_thread::sleep_for(std::chrono::seconds(AsLong("HangSeconds")));
    }
    lost_ = Places(AsText("LostInCamera"));
    ends_ = AsLong("EndsAfter");
    silent_ = AsLong("SilentAfter");
    breaks_ = AsLong("BreaksAfter");
    hangs_ = AsLong("HangsAfter");
    wrong_ = AsLong("WrongAfter");
    loop_ = AsLong("Loop") != 0;
    late_ = AsLong("FirstLate");
    chunk_ = AsLong("Chunk") != 0;
    times_ = AsText("Times");
    steps_ = AsText("ClockSteps");
    ++sequence_;
    char rate[MM::MaxStrLength];
    GetProperty("FrameRate", rate);
    period_ = std::chrono::duration<double>(1.0 / std::stod(rate));
    const int ready = GetCoreCallback()->PrepareForAcq(this);
    if (ready != DEVICE_OK) return ready;
    stop_ = false;
    running_ = true;
    player_ = std::thread(&ReplayCamera::Play, this);
    return DEVICE_OK;
  }
  int StopSequenceAcquisition() override {
    stop_ = true;
    if (player_.joinable()) player_.join();
    return DEVICE_OK;
  }
  bool IsCapturing() override { return running_; }

 private:
  size_t FrameBytes() const { return static_cast<size_t>(width_) * height_ * bytes_; }

  void Play() {
    const auto began = Clock::now() + std::chrono::milliseconds(late_);
    int status = DEVICE_OK;
    for (long i = 0; !stop_; ++i) {
      // At the movie's end a camera goes on: with nothing to show, this one is silent, unless it ends.
      if (i == ends_) break;
      if (i == silent_ || i == breaks_ || i == hangs_ || i == wrong_) std::ofstream(AsText("Mark")).put('!');
      if (i == breaks_) {
        broken_ = true;
        status = kBroken;
        break;
      }
      std::this_thread::sleep_until(began + std::chrono::duration_cast<Clock::duration>(period_ * i));
      if (i == hangs_) std::this_thread::sleep_for(std::chrono::seconds(AsLong("HangSeconds")));
      if ((i >= frames_ && !loop_) || (silent_ >= 0 && i >= silent_) || (hangs_ >= 0 && i >= hangs_)) continue;
      if (i < static_cast<long>(lost_.size()) && lost_[i]) continue;
      MM::CameraImageMetadata tags;
      // Its own time, as a camera that stamps its frames has it, however late this computer is.
      const double ms = 1000.0 * period_.count() * static_cast<double>(i);
      if (times_ != "none") tags.AddTag(MM::g_Keyword_Elapsed_Time_ms, Said(ms, i).c_str());
      if (chunk_) tags.AddTag("ChunkTimestamp", std::to_string(static_cast<long long>(1e6 * ms) + 77).c_str());
      status = GetCoreCallback()->InsertImage(this, movie_.data() + FrameBytes() * (i % frames_), GetImageWidth(),
                                              GetImageHeight() / (i == wrong_ ? 2 : 1), GetImageBytesPerPixel(),
                                              GetNumberOfComponents(), tags.Serialize());
      if (status != DEVICE_OK) break;  // the core's buffer is full
    }
    running_ = false;
    GetCoreCallback()->AcqFinished(this, status);
  }

  std::string Said(double ms, long i) const {
    std::stringstream steps(steps_);
    for (std::string part; steps >> part;) {
      long sequence = 0, frame = 0;
      double more = 0;
      std::sscanf(part.c_str(), "%ld:%ld:%lf", &sequence, &frame, &more);
      if (sequence == sequence_ && i >= frame) ms += more;
    }
    const double full = 4294967296.0;  // a counter of 32 bits
    if (times_ == "zero") return "0";
    if (times_ == "nan") return "nan";
    if (times_ == "text") return "later";
    if (times_ == "some" && i % 3 == 1) return "";
    if (times_ == "s") ms /= 1000;
    if (times_ == "us") ms *= 1000;
    if (times_ == "negative") ms -= 5000;
    if (times_ == "repeated") ms = 1000.0 * period_.count() * static_cast<double>(i - i % 2);
    if (times_ == "stops") ms = std::min(ms, 1000.0 * period_.count() * 70);
    if (times_ == "wraps") ms = std::fmod(full - 1200 + ms, full);
    char said[64];
    std::snprintf(said, sizeof said, "%.4f", ms);
    std::string text(said);
    if (times_ == "comma") text[text.find('.')] = ',';
    return times_ == "unit" ? text + " ms" : text;
  }

  static std::vector<bool> Places(const std::string& said) {
    std::vector<bool> places;
    std::stringstream parts(said);
    for (std::string part; parts >> part;) {
      const size_t dash = part.find('-');
      const long first = std::stol(part), last = dash == std::string::npos ? first : std::stol(part.substr(dash + 1));
      if (static_cast<long>(places.size()) <= last) places.resize(static_cast<size_t>(last) + 1);
      for (long i = first; i <= last; ++i) places[static_cast<size_t>(i)] = true;
    }
    return places;
  }

  void Text(const char* name, const char* value, bool before) {
    CreateProperty(name, value, MM::String, false, nullptr, before);
  }
  void Whole(const char* name, long value, bool before) {
    CreateProperty(name, std::to_string(value).c_str(), MM::Integer, false, nullptr, before);
  }
  std::string AsText(const char* name) const {
    char value[MM::MaxStrLength];
    GetProperty(name, value);
    return value;
  }
  long AsLong(const char* name) const { return std::stol(AsText(name)); }

  long width_ = 0, height_ = 0, bytes_ = 1, frames_ = 0;
  long ends_ = -1, silent_ = -1, breaks_ = -1, hangs_ = -1, wrong_ = -1;
  std::vector<unsigned char> movie_;
  std::vector<bool> lost_;
  std::chrono::duration<double> period_{1.0 / 60};
  std::thread player_;
  bool loop_ = false, chunk_ = false;
  long late_ = 0, sequence_ = 0;
  std::string times_, steps_;
  std::atomic<bool> stop_{false}, running_{false}, broken_{false};
};

MODULE_API void InitializeModuleData() { RegisterDevice(kName, MM::CameraDevice, "Plays a known movie"); }
MODULE_API MM::Device* CreateDevice(const char* name) {
  return name != nullptr && std::string(name) == kName ? new ReplayCamera() : nullptr;
}
MODULE_API void DeleteDevice(MM::Device* device) { delete device; }
