"""Print the class of each image: python3 infer.py photo.jpg ...; or run the sample images: python3 infer.py --check

The reference of how this bundle's network is used, and a module to import: `Classifier(folder).classify(file)`. How an
image becomes the network's input is read from `[preprocessing]` of deploy.toml, step by step, and nothing is assumed: a
rule that this program doesn't know ends it, and so does a model file that isn't the one that was written.

It needs Python 3.11, numpy, Pillow, and what the chosen model file is for: onnxruntime (.onnx), ncnn (.ncnn.zip),
ai-edge-litert (.tflite), or a C compiler (.native.zip). It connects to nothing and writes nothing but a compiled kernel
into a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import PREFIXES, TiffImageFile

Array = np.ndarray[Any, np.dtype[Any]]
Rules = Mapping[str, Any]  # the table [preprocessing]

# The rules that this program follows: each key with the values that it knows.
KNOWN: Mapping[str, tuple[Any, ...]] = {
    "orientation": ("exif",),
    "colour_space": ("as stored",),
    "palette": ("expanded",),
    "alpha": ("dropped",),
    "cmyk": ("without profile",),
    "grey": ("ITU-R 601-2",),
    "sixteen_bit": ("high byte", "kept"),
    "channel_order": ("L", "RGB"),
    "crop": ("centre",),
    "filter": ("bilinear, antialiased",),
    "pixel_type": ("uint8", "uint16"),
    "scale": ("x = ((pixel - low) / (high - low) - mean) / std",),
    "in_model": ([], ["scale"]),
    "layout": ("NCHW",),
}
CHECKED_FURTHER = {"formats", "size", "pixel_range", "mean", "std", "dtype"}  # the other keys, see `check_rules`
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # other decoders of Pillow may start programs
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 1 << 27)  # Pillow's own limit, against files that unpack to gigabytes
# Of TIFF 6.0: sizes, samples, compression, strips, orientation, predictor, palette, tiles, extra samples, JPEG, YCbCr.
TIFF_TAGS = {*range(256, 260), 262, 266, 273, 274, *range(277, 280), 284, 317, 320, *range(322, 326), 338, 339, 347}
TIFF_TAGS |= {*range(529, 533)}
TURNED = {  # by the orientation that EXIF says a photo has
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# ---- the rules -------------------------------------------------------------------------------------------------


def check_rules(rules: Rules) -> None:
    """Check that the table [preprocessing] holds the rules that this program follows, and no others.

    Raises:
        ValueError: a key is missing or unknown, or has a value that this program doesn't know.
    """
    keys = KNOWN.keys() | CHECKED_FURTHER
    if unknown := sorted(rules.keys() - keys):
        raise ValueError(f"[preprocessing] has a rule that this program doesn't know: {unknown[0]}")
    if missing := sorted(keys - rules.keys()):
        raise ValueError(f"[preprocessing] lacks {missing[0]}")
    for key, values in KNOWN.items():
        if rules[key] not in values:
            raise ValueError(f"[preprocessing] {key} must be one of {values}, but is {rules[key]!r}")
    formats = rules["formats"]
    if not isinstance(formats, list) or not formats or any(one not in FORMATS for one in formats):
        raise ValueError(f"[preprocessing] formats must be some of {FORMATS}, but is {formats!r}")
    deep = rules["pixel_type"] == "uint16"
    follows = {
        "sixteen_bit": "kept" if deep else "high byte",
        "dtype": rules["pixel_type"] if rules["in_model"] else "float32",
    }
    for key, value in follows.items():
        if rules[key] != value:
            raise ValueError(f"[preprocessing] {key} must be {value!r} beside the other rules, but is {rules[key]!r}")
    _check_numbers(rules)


def _check_numbers(rules: Rules) -> None:
    channels = len(rules["channel_order"])
    counts = {"size": 2, "pixel_range": 2, "mean": channels, "std": channels}
    for key, count in counts.items():
        given = rules[key]
        if not isinstance(given, list) or len(given) != count or not all(map(_is_finite, given)):
            raise ValueError(f"[preprocessing] {key} must be {count} finite numbers, but is {given!r}")
    if not all(type(one) is int and one > 0 for one in rules["size"]):
        raise ValueError(f"[preprocessing] size must be whole numbers above 0, but is {rules['size']!r}")
    if not rules["pixel_range"][0] < rules["pixel_range"][1] or min(rules["std"]) <= 0:
        raise ValueError("[preprocessing] pixel_range must rise, and std must be above 0")


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]  # a bool is no number here


# ---- from a file to pixels -------------------------------------------------------------------------------------


class _TiffPixels(TiffImageFile):
    """A TIFF of which only the tags that pixels depend on are looked at: Pillow trips over others that are damaged."""

    format = "TIFF"

    def _setup(self) -> None:
        for tag in self.tag_v2.keys() - TIFF_TAGS:
            del self.tag_v2[tag]
        self.white_is_zero = self.tag_v2.get(258) == (16,) and self.tag_v2.get(262) == 0
        if self.white_is_zero:  # Pillow inverts no such pixels, and reads them in one of the two byte orders only
            self.tag_v2[262] = 1
        self.info.pop("xmp", None)  # see `upright`
        super()._setup()


def opened_image(file: IO[bytes], rules: Rules) -> Image.Image:
    """Return an opened file as an image of Pillow, not decoded yet; only the decoders of the rules are tried.

    Raises:
        DecompressionBombError: it has more pixels than `MOST_PIXELS`. What Pillow's decoders raise.
    """
    is_tiff = file.read(4) in PREFIXES and "TIFF" in rules["formats"]
    file.seek(0)
    image = _TiffPixels(file) if is_tiff else Image.open(file, formats=rules["formats"])
    if image.width * image.height > MOST_PIXELS:  # Pillow looks at what it opens itself only
        raise Image.DecompressionBombError(
            f"more than {MOST_PIXELS / 1e6:.0f} million pixels, which would fill the memory; make it smaller"
        )
    return image


def read_pixels(file: str | Path, rules: Rules) -> Array:
    """Return an image file's pixels, (C, H, W), see `pixels_of`.

    Raises what Pillow's decoders raise: a dozen unrelated types.
    """
    with Path(file).open("rb") as opened, opened_image(opened, rules) as image:
        return pixels_of(image, rules)


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says. Nothing else of EXIF is read: any of it may be damaged.

    XMP's copy of the orientation isn't used: Pillow would take it where EXIF has none, but OpenCV and others don't.
    """
    _drop_xmp(image)
    image.load()
    _drop_xmp(image)  # in a PNG it may follow the pixels
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises a dozen unrelated types here too; a viewer shows such a photo as it lies
        return image
    method = TURNED.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def holds_16_bits(image: Image.Image) -> bool:
    """Whether an image's greys have 16 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def _drop_xmp(image: Image.Image) -> None:
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    """Return the value of a TIFF's tag, a sequence where it has several; None: no such tag, or no TIFF."""
    return getattr(image, "tag_v2", {}).get(tag)


def pixels_of(image: Image.Image, rules: Rules) -> Array:
    """Return an image as (C, H, W) uint8 or uint16: turned upright, converted, cropped and resized.

    Where pixels have 16 bits, v of an image of 8 bits becomes 257 v.

    Raises:
        ValueError: the pixels are 32-bit or signed numbers, of which it is unknown what is black and what is white.
    """
    deep = rules["pixel_type"] == "uint16"
    of_16_bits, bits = holds_16_bits(image), _tiff_tag(image, 258)
    white_is_zero = of_16_bits and (getattr(image, "white_is_zero", False) or _tiff_tag(image, 262) == 0)
    image = upright(image)
    if white_is_zero:
        image = Image.fromarray(65_535 - np.asarray(image).astype(np.uint16))
    if of_16_bits and deep:
        greys = np.asarray(_fitted(Image.fromarray(np.asarray(image).astype(np.float32)), rules["size"]))
        levels = np.clip(np.rint(greys), 0, 65_535).astype(np.uint16)
        return np.repeat(levels[None], len(rules["channel_order"]), axis=0)
    if of_16_bits:  # Pillow's own conversion would clip to white instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = "signed 16-bit" if bits == (16,) else "32-bit"
        raise ValueError(f"{kind} pixels (mode {image.mode}); convert it to 8 or 16 bits a channel, without a sign")
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    pixels = np.asarray(_fitted(image.convert(rules["channel_order"]), rules["size"]))  # (H, W) or (H, W, C)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return pixels.astype(np.uint16) * np.uint16(257) if deep else pixels


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the largest centred rectangle of the shape of `size` (height, width), resized to it."""
    height, width = size
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


# ---- from pixels to the network's input ------------------------------------------------------------------------


def factors(rules: Rules) -> tuple[Array, Array]:
    """Return scale and shift, each (C, 1, 1) float32: the network's input is clip(pixel, low, high) * scale + shift."""
    low, high = map(float, rules["pixel_range"])
    mean, std = (np.array(rules[name], dtype=np.float64).reshape(-1, 1, 1) for name in ("mean", "std"))
    scale, shift = 1 / ((high - low) * std), (-low / (high - low) - mean) / std
    return scale.astype(np.float32), shift.astype(np.float32)


def scaled(pixels: Array, rules: Rules) -> Array:
    """Return pixels (..., C, H, W) as float32 with the training images' mean 0 and deviation 1 in every channel."""
    scale, shift = factors(rules)
    clipped: Array = np.clip(pixels.astype(np.float32), *rules["pixel_range"], dtype=np.float32)
    return clipped * scale + shift


# ---- running the model -----------------------------------------------------------------------------------------


def _open_onnx(model: Path) -> Callable[[Array], Array]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at import: else onnxruntime 1.29 and later report use
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run(None, {name: x[None]})[0][0])


def _open_litert(model: Path) -> Callable[[Array], Array]:
    from ai_edge_litert import interpreter

    network = interpreter.Interpreter(model_path=str(model), num_threads=1)
    network.allocate_tensors()
    given, returned = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]

    def run(x: Array) -> Array:
        network.set_tensor(given, np.ascontiguousarray(x.transpose(1, 2, 0)[None]))  # channels come last
        network.invoke()
        return np.array(network.get_tensor(returned)[0])

    return run


def _open_ncnn(model: Path) -> Callable[[Array], Array]:
    import ncnn

    network = ncnn.Net()
    with zipfile.ZipFile(model) as archive:
        facts = json.loads(archive.read("model.json"))
    fp16 = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")  # done where the processor has it
    on = {"int8": ("use_int8_inference",), "fp16": fp16}.get(facts.get("precision", ""), ())
    for name in dir(network.opt):
        if name.startswith(("use_fp16", "use_bf16", "use_int8")):
            setattr(network.opt, name, name in on)
    network.opt.num_threads = 1
    layers: list[Any] = []  # ncnn holds no reference to a layer written in Python
    if ncnn.layer_to_index("ChannelGather") < 0:  # it isn't built in

        def make() -> Any:
            layers.append(_channel_gather(ncnn)())
            return layers[-1]

        network.register_custom_layer("ChannelGather", make, layers.remove)
    with zipfile.ZipFile(model) as archive, tempfile.TemporaryDirectory() as folder:
        for name, load in (("model.param", network.load_param), ("model.bin", network.load_model)):
            Path(folder, name).write_bytes(archive.read(name))
            if load(str(Path(folder, name))) != 0:
                raise ValueError(f"ncnn can't read {name} of {model}")

    def run(x: Array) -> Array:
        extractor = network.create_extractor()
        pixels = np.ascontiguousarray(x, np.float32)  # named, because a Mat of an array doesn't keep the array
        extractor.input(facts["input"], ncnn.Mat(pixels).clone())  # a first layer that works in place needs its own
        return np.array(extractor.extract(facts["output"])[1])

    return run


def _channel_gather(ncnn: Any) -> Any:
    class ChannelGather(ncnn.Layer):  # type: ignore[misc]
        """Picks channels: parameter 0 says how many, the weights are their indices as int32."""

        def __init__(self) -> None:
            super().__init__()
            self.one_blob_only = True

        def load_param(self, parameters: Any) -> int:
            self.count = parameters.get(0, 0)
            return 0

        def load_model(self, weights: Any) -> int:
            self.index = np.array(weights.load(self.count, 1)).view(np.int32).astype(np.intp)
            return 0

        def forward(self, bottom: Any, top: Any, options: Any) -> int:
            top.create((bottom.w, bottom.h, self.count))
            np.asarray(bottom).take(self.index, 0, np.asarray(top), "clip")
            return 0

    return ChannelGather


def _compiled(folder: Path) -> Any:
    """Return the library of a folder's C sources: of $CC, or of the first compiler here that is for this processor.

    The first one on the path needn't be: an emulated Python starts the compiler of the machine around it.

    Raises:
        ValueError: there is no compiler, or each is for another processor. CalledProcessError: it can't compile.
    """
    named, machine = os.environ.get("CC"), platform.machine()
    usual = map(shutil.which, ("cc", "gcc", "clang", f"{machine}-linux-gnu-gcc"))
    compilers = [named] if named else list(filter(None, usual))
    for number, compiler in enumerate(compilers):
        library = folder / f"model-{number}.so"
        subprocess.run([compiler, "-O3", "-shared", "-fPIC", "-o", library, *sorted(folder.glob("*.c"))], check=True)
        with contextlib.suppress(OSError):  # it says that there is no such file where it is for another processor
            return ctypes.CDLL(str(library))
    tried = f"but {', '.join(compilers)} isn't" if compilers else "but there is none"
    raise ValueError(
        f"the kernel needs a C compiler for the processor that this Python runs on ({machine}), {tried}; install one, "
        f"or name it with CC, such as CC={machine}-linux-gnu-gcc"
    )


def _open_native(model: Path) -> Callable[[Array], Array]:
    with zipfile.ZipFile(model) as archive, tempfile.TemporaryDirectory() as folder:
        archive.extractall(folder)
        kernel = _compiled(Path(folder))
        words = np.fromfile(Path(folder, "weights.bin"), "<i4")
        scaling = np.fromfile(Path(folder, "scaling.bin"), "<f4") if Path(folder, "scaling.bin").exists() else None
    kernel.condensenet_workspace.restype = ctypes.c_size_t
    kernel.condensenet_workspace.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    floats = kernel.condensenet_workspace(words.ctypes.data, words.size)
    if floats == 0:
        raise ValueError(f"weights.bin of {model} isn't a network's")
    workspace, logits = np.empty(floats, np.float32), np.empty(words[11], np.float32)
    kernel.condensenet_run.argtypes = [ctypes.c_void_p] * 4

    def run(x: Array) -> Array:
        x = np.ascontiguousarray(x)
        memory = (logits.ctypes.data, workspace.ctypes.data)
        if scaling is None:
            kernel.condensenet_run(words.ctypes.data, x.ctypes.data, *memory)
        else:
            image = np.empty(x.shape, np.float32)
            kernel.condensenet_run_pixels.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int] + [ctypes.c_void_p] * 3
            given = (words.ctypes.data, scaling.ctypes.data, x.ctypes.data, x.itemsize)
            kernel.condensenet_run_pixels(*given, *memory, image.ctypes.data)
        return logits.copy()

    return run


OPENERS: Mapping[str, Callable[[Path], Callable[[Array], Array]]] = {
    ".onnx": _open_onnx,
    ".tflite": _open_litert,
    ".ncnn.zip": _open_ncnn,
    ".native.zip": _open_native,
}


def open_model(file: Path) -> Callable[[Array], Array]:
    """Return the function from one input (C, H, W) to the logits (classes,).

    Raises:
        ValueError: the file is for no runtime. What the runtime raises.
    """
    for suffix, opener in OPENERS.items():
        if file.name.endswith(suffix):
            return opener(file)
    raise ValueError(f"a model file must end in one of {', '.join(OPENERS)}, but {file.name} doesn't")


def checked_model(bundle: Path, name: str, hashes: Mapping[str, str]) -> Path:
    """Return a model file of a bundle, whose SHA-256 is the one that deploy.toml says.

    Raises:
        ValueError: it isn't, or the file isn't one of the bundle's own.
    """
    if name not in hashes or Path(name).name != name:
        raise ValueError(f"the model file must be one of this bundle's ({', '.join(hashes)}), but is {name}")
    with (bundle / name).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != hashes[name]:
        raise ValueError(f"{name} is damaged or was replaced: deploy.toml has another SHA-256; copy the bundle again")
    return bundle / name


class Classifier:
    """The network of a bundle.

    Args:
        bundle: the folder with deploy.toml.
        model: the name of one of its model files; "" for the one that deploy.toml names first.

    Raises:
        ValueError: deploy.toml has a rule that this program doesn't know, or the model file isn't one of the bundle's.
    """

    def __init__(self, bundle: Path, model: str = "") -> None:
        deploy = tomllib.loads((bundle / "deploy.toml").read_text(encoding="utf-8"))
        self.bundle, self.model = bundle, str(model or deploy["model"]["file"])
        self.rules: Rules = deploy["preprocessing"]
        check_rules(self.rules)
        self.names: list[str] = deploy["classes"]["names"]
        self._run = open_model(checked_model(bundle, self.model, deploy["model_files_sha256"]))

    def logits(self, file: str | Path) -> Array:
        """Return the network's output, (classes,), for an image file."""
        return self.logits_of(read_pixels(file, self.rules))

    def logits_of(self, pixels: Array) -> Array:
        """Return the network's output, (classes,), for pixels as `read_pixels` returns them."""
        return self._run(pixels if self.rules["in_model"] else scaled(pixels, self.rules))

    def classify(self, file: str | Path) -> tuple[str, float]:
        """Return the most likely class of an image file, and its probability."""
        return self.most_likely(self.logits(file))

    def most_likely(self, logits: Array) -> tuple[str, float]:
        """Return the most likely class by the network's output, (classes,), and its probability."""
        logits = logits.astype(np.float64)
        odds = np.exp(logits - logits.max())
        best = int(odds.argmax())
        return self.names[best], float(odds[best] / odds.sum())


def difference(logits: Array, expected: Array) -> float:
    """Return the largest difference of logits, any shape, as a share of the largest that is expected; inf for NaN."""
    largest = float(np.abs(expected).max(initial=0.0)) or 1.0
    found = float(np.abs(logits - expected).max(initial=0.0)) / largest if logits.shape == expected.shape else math.inf
    return math.inf if math.isnan(found) else found


def _check(classifier: Classifier) -> int:
    """Run the sample images and print how far the outputs are from the recorded ones; return 1 if that is too far."""
    folder = classifier.bundle / "samples"
    if not (folder / "expected.json").is_file():
        sys.exit("the bundle has no samples")
    document = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    failed, allowed = 0, document["tolerances"][classifier.model]
    expected = [np.array(image["logits"][classifier.model]) for image in document["images"]]
    largest = max(float(np.abs(one).max()) for one in expected)
    for image, logits in zip(document["images"], expected, strict=True):
        found = difference(np.append(classifier.logits(folder / image["file"]), largest), np.append(logits, largest))
        failed |= found > allowed
        print(f"{image['file']}: {'differs' if found > allowed else 'as recorded'} ({found:.1e}, at most {allowed:g})")
    return failed


def main() -> int:
    """Print the class and its probability for each image; return 1 if one could not be read."""
    parser = argparse.ArgumentParser(description="Print the class of each image, with its probability.")
    parser.add_argument("images", nargs="*", help="image files")
    parser.add_argument("--check", action="store_true", help="run the sample images and compare with what is recorded")
    parser.add_argument("--model", default="", help="model file of the bundle (default: the one in deploy.toml)")
    options = parser.parse_args()
    try:
        classifier, failed = Classifier(Path(__file__).parent, options.model), 0
    except ImportError as error:
        sys.exit(f"{error}; install it with pip, or name another model file with --model")
    except Exception as error:  # a runtime's errors have no class in common
        sys.exit(f"the bundle can't be used: {' '.join(str(error).split())}")
    if options.check:
        return _check(classifier)
    if not options.images:
        parser.error("name an image, or run the samples with --check")
    for file in options.images:
        try:
            name, probability = classifier.classify(file)
        except Exception as error:  # Pillow's decoders raise a dozen unrelated types on broken files
            print(f"{file}: can't be read as an image ({error})", file=sys.stderr)
            failed = 1
        else:
            print(f"{file}: {name} ({probability:.1%})")
    return failed


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads may stop reading: infer.py … | head
    sys.exit(main())
