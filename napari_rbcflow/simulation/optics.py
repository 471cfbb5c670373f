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
from functools import lru_cache

import numpy as np
import scipy.fft

from napari_rbcflow.errors import BadInput
from napari_rbcflow.types import Floats, Floats32

OVERSAMPLING = 2  # samples a pixel: exp(i phi) has a wider spectrum than the aperture lets through
MAX_ASLANT = 2.0
_KNIFE_EDGE = 4.0 / math.pi


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


@lru_cache(maxsize=8)
def _frequencies(side: int, pixel_um: float) -> tuple[Floats, Floats]:
    k = scipy.fft.fftfreq(side, pixel_um)
    return k[None, :], (k[:, None] ** 2 + k[None, :] ** 2)


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
    kx, k2 = _frequencies(side, pixel_um / OVERSAMPLING)
    wave = 2.0 * np.pi * optics.index_step * content / optics.wavelength_um
    absorption = 0.5 * optics.absorption_per_um * content
    inner = thickness_um.shape[-1]
    edge = side // 2 - inner // 2
    sheet = np.zeros((len(thickness_um), side, side), np.complex64)
    factor = np.complex64(1j * wave - absorption)
    sheet[:, edge : edge + inner, edge : edge + inner] = np.exp(factor * thickness_um) - np.complex64(1)
    height = np.atleast_1d(np.asarray(defocus_um, dtype=np.float64))[:, None, None]
    per_um = optics.medium_index / optics.wavelength_um
    axial = np.sqrt(np.maximum(per_um**2 - k2, 0.0)) - per_um
    limit = optics.numerical_aperture / optics.wavelength_um
    pupil = np.clip((limit - np.sqrt(k2)) / (0.15 * limit) + 0.5, 0.0, 1.0)
    carry = (pupil * np.exp(2j * np.pi * height * axial)).astype(np.complex64)
    field = 1.0 + scipy.fft.ifft2(scipy.fft.fft2(sheet) * carry)
    light = (field.real**2 + field.imag**2 - 1.0).astype(np.float32)
    if optics.aslant:
        part = (slice(None), slice(edge, edge + inner), slice(edge, edge + inner))
        slope = np.zeros_like(sheet)
        lit = _lit_slope(thickness_um, content, pixel_um / OVERSAMPLING, optics)
        slope[part] = 0.5 * lit * (1.0 + sheet[part])
        turned = scipy.fft.ifft2(scipy.fft.fft2(slope) * carry)
        light += (2.0 * (field.real * turned.real + field.imag * turned.imag)).astype(np.float32)
    source_um = 0.5 * np.abs(height) * optics.condenser_aperture / optics.medium_index
    ky = kx.T
    blur = np.exp(-2.0 * np.pi**2 * (source_um**2 + optics.blur_um**2) * k2)
    blur = blur * np.sinc(kx * smear_um) * np.sinc(kx * pixel_um) * np.sinc(ky * pixel_um)
    half = blur[:, :, : side // 2 + 1].astype(np.float32)
    out: Floats32 = scipy.fft.irfft2(scipy.fft.rfft2(light) * half, s=(side, side))
    return out


def _lit_slope(thickness_um: Floats32, content: float, fine_um: float, optics: Optics) -> Floats32:
    """Return how much brighter each place is for its slope, relative; linear in `Optics.aslant`."""
    along_y, along_x = np.gradient(thickness_um, fine_um, axis=(1, 2))
    angle = math.radians(optics.lit_from_deg)
    rising = math.cos(angle) * along_x + math.sin(angle) * along_y
    # The light bends by index step x slope, and the edge lets that much more of the condenser's disc through.
    gain = optics.aslant * _KNIFE_EDGE * optics.index_step * content / optics.condenser_aperture
    lit: Floats32 = np.asarray(-gain * rising, dtype=np.float32)
    return lit
