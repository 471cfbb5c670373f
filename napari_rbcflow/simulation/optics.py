"""What a bright-field microscope makes of a thin phase object out of focus.

The cell is a thin sheet of transmission exp(i phi - a). The angular spectrum within the objective's aperture
carries its field from the cell's plane to the focal plane. The condenser's aperture blurs a defocused image
by its own shape scaled with the defocus (the generalised Schell theorem), the exposure smears it along the
flow, and the pixel averages it.

In oblique illumination, where part of the condenser's aperture is cut off, a slope of the phase looks
brighter or darker as it bends light over the edge. To first order this brightness is put into the sheet's
transmission and goes through the same optics. That a tilt also shifts what is out of focus is left out.

References
----------
Goodman, Introduction to Fourier Optics, 3rd ed. (2005), section 3.10: angular spectrum.
Nugent, Adv. Opt. Photonics 2 (2010) and Beleggia et al., Ultramicroscopy 102 (2004) 37: the
partially coherent defocused image as the coherent one convolved with the scaled source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from napari_rbcflow.errors import BadInput
from napari_rbcflow.types import Floats, Floats32

OVERSAMPLING = 2  # samples a pixel: exp(i phi) has a wider spectrum than the aperture lets through
MAX_ASLANT = 2.0
_KNIFE_EDGE = 4.0 / math.pi
_APERTURE_EDGE = 0.15  # of its radius, over which the objective's aperture fades


@dataclass(frozen=True)
class Optics:
    """Microscope, illumination and cell content.

    Attributes
    ----------
    numerical_aperture, condenser_aperture : float
    wavelength_um : float
    medium_index : float
        Of the dextran solution.
    index_step : float
        Of the haemoglobin solution in the cell over the medium.
    absorption_per_um : float
        Of the field's intensity, in the cell.
    blur_um : float
        Standard deviation of the blur by lenses, sensor and the width of the lamp's spectrum, beyond the
        aperture's.
    aslant : float
        How oblique the illumination is, so that cells look lit from one side: 0 is straight, 1 is a knife
        edge across the middle of the condenser's aperture, 2 the most. The published patient LJ has 0.5.
    lit_from_deg : float
        The side that cells look lit from: 0 is downstream (right), 90 the lower side of the image.

    Raises
    ------
    BadInput
        If `aslant` or `lit_from_deg` is out of range.
    """

    numerical_aperture: float = 0.25
    condenser_aperture: float = 0.12
    wavelength_um: float = 0.55
    medium_index: float = 1.35
    index_step: float = 0.033
    absorption_per_um: float = 0.03
    blur_um: float = 0.40
    aslant: float = 0.0
    lit_from_deg: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.aslant <= MAX_ASLANT:
            raise BadInput("simulation.aslant-range", most=MAX_ASLANT, aslant=self.aslant)
        if not math.isfinite(self.lit_from_deg):
            raise BadInput("simulation.lit-from-not-finite")


def contrast(
    thickness_um: Floats32,
    *,
    side: int,
    defocus_um: float | Floats,
    smear_um: float,
    content: float,
    pixel_um: float,
    optics: Optics,
) -> Floats32:
    """Return the relative contrast I / I0 - 1 of n cells, shape (n, side, side), centred at index side // 2.

    `thickness_um`, shape (n, m, m), is centred at index m // 2, m even. Both have `OVERSAMPLING` samples a
    pixel, but the result is already averaged over a pixel's area. A cell above the focus (`defocus_um` above
    0) is a weak converging lens and shows a bright centre. `smear_um` is the way along x during the exposure;
    `content`, the haemoglobin relative to the mean cell, scales index step and absorption.
    """
    fine = pixel_um / OVERSAMPLING
    limit = optics.numerical_aperture / optics.wavelength_um
    # The aperture lets only low frequencies through, and intensity has up to twice as high ones: coarse
    # samples hold them all.
    reach = math.ceil((1.0 + 0.5 * _APERTURE_EDGE) * limit * side * fine)
    coarse = min(side, 4 * math.ceil((4 * reach + 2) / 4))
    seen, kept = _band(side, reach), 2 * reach if coarse < side else side
    ky = scipy.fft.fftfreq(side, fine)[seen][:, None]
    kx = ky.T
    k2 = ky**2 + kx**2
    wave = 2.0 * np.pi * optics.index_step * content / optics.wavelength_um
    absorption = 0.5 * optics.absorption_per_um * content
    sheet = np.exp(np.complex64(1j * wave - absorption) * thickness_um) - np.complex64(1)
    height = np.atleast_1d(np.asarray(defocus_um, dtype=np.float64))[:, None, None]
    per_um = optics.medium_index / optics.wavelength_um
    axial = np.sqrt(np.maximum(per_um**2 - k2, 0.0)) - per_um
    pupil = np.clip((limit - np.sqrt(k2)) / (_APERTURE_EDGE * limit) + 0.5, 0.0, 1.0)
    carry = pupil * np.exp(2j * np.pi * height * axial) * (coarse / side) ** 2
    carry = carry.astype(np.complex64)

    def carried(of: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """Carry what leaves the cell to the focal plane, in coarse samples."""
        return _inverse(_spectrum(of, side, seen) * carry, coarse, _band(coarse, reach))

    field = 1.0 + carried(sheet)
    light = (field.real**2 + field.imag**2 - 1.0).astype(np.float32)
    if optics.aslant:
        lit = _lit_slope(thickness_um, content, fine, optics)
        turned = carried(np.complex64(0.5) * lit * (np.complex64(1) + sheet))
        light += (2.0 * (field.real * turned.real + field.imag * turned.imag)).astype(np.float32)
    source_um = 0.5 * np.abs(height) * optics.condenser_aperture / optics.medium_index
    rows, columns = _band(side, kept), min(kept, side // 2) + 1
    kx = scipy.fft.rfftfreq(side, fine)[None, :columns]
    ky = scipy.fft.fftfreq(side, fine)[rows][:, None]
    blur = np.exp(-2.0 * np.pi**2 * (source_um**2 + optics.blur_um**2) * (ky**2 + kx**2))
    blur = blur * (np.sinc(kx * smear_um) * np.sinc(kx * pixel_um) * np.sinc(ky * pixel_um))
    spectrum = scipy.fft.rfft2(light)[:, _band(coarse, kept), :columns]
    spectrum *= (blur * (side / coarse) ** 2).astype(np.float32)
    whole = np.zeros((len(spectrum), side, columns), np.complex64)
    whole[:, rows] = spectrum
    out: Floats32 = scipy.fft.irfft(scipy.fft.ifft(whole, axis=1, overwrite_x=True), side, axis=2)
    return out


def _band(samples: int, reach: int) -> NDArray[np.int64]:
    """Indices of the frequencies up to `reach`, of either sign, in a transform's order."""
    if 2 * reach + 1 >= samples:
        return np.arange(samples)
    return np.concatenate([np.arange(reach + 1), np.arange(samples - reach, samples)])


def _spectrum(inner: NDArray[np.complex64], side: int, seen: NDArray[np.int64]) -> NDArray[np.complex64]:
    """Two-dimensional transform, at the frequencies `seen`, of what is zero but for the middle of `side`."""
    n, size = inner.shape[:2]
    edge = side // 2 - size // 2
    tall = np.zeros((n, side, size), np.complex64)
    tall[:, edge : edge + size] = inner
    wide = np.zeros((n, len(seen), side), np.complex64)
    wide[:, :, edge : edge + size] = scipy.fft.fft(tall, axis=1, overwrite_x=True)[:, seen]
    spectrum: NDArray[np.complex64] = scipy.fft.fft(wide, axis=2, overwrite_x=True)[:, :, seen]
    return spectrum


def _inverse(spectrum: NDArray[np.complex64], side: int, places: NDArray[np.int64]) -> NDArray[np.complex64]:
    """Transform back to `side` samples what has only the frequencies at `places`."""
    n, size = spectrum.shape[:2]
    tall = np.zeros((n, side, size), np.complex64)
    tall[:, places] = spectrum
    wide = np.zeros((n, side, side), np.complex64)
    wide[:, :, places] = scipy.fft.ifft(tall, axis=1, overwrite_x=True)
    field: NDArray[np.complex64] = scipy.fft.ifft(wide, axis=2, overwrite_x=True)
    return field


def _lit_slope(thickness_um: Floats32, content: float, fine_um: float, optics: Optics) -> Floats32:
    """Return how much brighter each place is for its slope, relative; linear in `Optics.aslant`."""
    along_y, along_x = np.gradient(thickness_um, fine_um, axis=(1, 2))
    angle = math.radians(optics.lit_from_deg)
    rising = math.cos(angle) * along_x + math.sin(angle) * along_y
    # The light bends by index step x slope, and the edge lets that much more of the condenser's disc through.
    gain = optics.aslant * _KNIFE_EDGE * optics.index_step * content / optics.condenser_aperture
    lit: Floats32 = np.asarray(-gain * rising, dtype=np.float32)
    return lit
