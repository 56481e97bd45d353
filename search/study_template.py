"""Commented study files to start from, one for each preset: `condensery init` writes them, `examples/` has a copy."""

from __future__ import annotations

from dataclasses import dataclass

from space.errors import InvalidSettings


@dataclass(frozen=True)
class Template:
    """What differs between the presets."""

    about: str
    dataset: str
    space: str
    training: str
    trainings: int
    workers: int
    budget: str
    latency_policy: str


TEMPLATES: dict[str, Template] = {
    "digits": Template(
        about="a search of a few minutes on scikit-learn's digits: 1,797 real images of 8 x 8, nothing to download",
        dataset='dataset = "digits"',
        space="""groups = [1, 2, 4]             # G, groups of the learned 1x1 convolutions
condense_factor = [2, 4]       # C, every group keeps 1/C of its inputs; 1 would never condense
bottleneck = [1, 2, 4]         # the 1x1 convolution makes bottleneck * growth channels
num_stages = [2, 3]
layers = { low = 1, high = 4 } # dense layers of each stage
growth = [4, 8, 12, 16]        # channels that each layer adds, chosen for each stage""",
        training="""epochs = 30
batch_size = 64
learning_rate = 0.1            # or a list, or { low = 0.02, high = 0.2, log = true }, to search it too""",
        trainings=16,
        workers=2,
        budget="max_macs = 600_000",
        latency_policy="quick",
    ),
    "cifar": Template(
        about="CIFAR-10 by the paper's recipe, on 80 % of its training images (others choose); a day or more on a GPU",
        dataset='dataset = "cifar10"            # or "cifar100", "fashion-mnist", "imagefolder:PATH"\n'
        "download = false               # true fetches it into `folder` when it isn't there",
        space="""groups = [1, 2, 4, 8]          # G, groups of the learned 1x1 convolutions
condense_factor = [1, 2, 4, 8] # C, every group keeps 1/C of its inputs
bottleneck = [2, 4]            # the 1x1 convolution makes bottleneck * growth channels
groups_3x3 = ["same", 1, 4]    # "same": as many as G
num_stages = 3
layers = { low = 4, high = 20, step = 2 }
growth_rule = "doubling"       # each stage doubles the growth of the one before
growth = [4, 8, 12, 16]        # of the first stage""",
        training="""epochs = 300
batch_size = 64
learning_rate = 0.1
weight_decay = 1e-4
group_lasso = 0.0              # 1e-5 presses columns towards zero before they are dropped""",
        trainings=60,
        workers=1,
        budget="max_macs = 70_000_000",
        latency_policy="standard",
    ),
    "imagenet-mobile": Template(
        about="mobile-sized networks for 224 x 224 images of your own, sorted into one folder for each class",
        dataset='dataset = "imagefolder:/path/to/images"   # train/CLASS/*.jpg and test/CLASS/*.jpg\nimage_size = 224',
        space="""groups = [4, 8]                # G, groups of the learned 1x1 convolutions
condense_factor = [4, 8]       # C, every group keeps 1/C of its inputs
bottleneck = [2, 4]            # the 1x1 convolution makes bottleneck * growth channels
num_stages = 5
layers = { low = 2, high = 12, step = 2 }
growth_rule = "doubling"       # each stage doubles the growth of the one before
growth = [8, 16]               # of the first stage
classifier_keep = [0.5, 1.0]   # fraction of the features the deployed classifier reads""",
        training="""epochs = 120
batch_size = 64                # 256 in the paper's recipe; of few images, smaller batches make more steps
learning_rate = 0.1
weight_decay = 1e-4
group_lasso = 1e-5
# balance = "weights"          # where classes have very different numbers of images
# start = "bundle:FOLDER"      # begin with the layers of a network that was trained before""",
        trainings=40,
        workers=1,
        budget="max_macs = 600_000_000",
        latency_policy="standard",
    ),
}


# Filled in by `str.format` with a `Template`, the study's name, its latency policy and the line of its latency limit.
_STUDY_FILE = """# A Condensery study: {template.about}.
# `condensery check` explains it, `condensery launch` runs it.
format = 1                     # the version of this file's format

[study]
name = "{name}"
trainings = {template.trainings:<18} # networks to train to the end
seed = 0
# objective = "macro_f1"       # what is maximised: top1, balanced_accuracy or macro_f1
# storage = "sqlite:///condensery.db"
# files = "condensery-files"   # networks, logs, checkpoints, decoded images
# tensorboard = true           # learning curves for TensorBoard too; needs condensery[tensorboard]

[data]
{template.dataset}
validation_fraction = 0.2      # of the training images, held out to compare networks on

[space]                        # a value, a list, or {{ low = 1, high = 9, step = 2 }}
{template.space}

[training]
{template.training}

[budget]                       # a candidate over a limit is recorded, never trained
{limit}
{template.budget}
# max_params = 1_000_000
# max_ram_mb = 120             # memory of the process that runs the network, runtime included

[latency]
devices = ["host"]             # this machine; or your devices' queues, or "virtual:raspberry-pi-5" (estimated)
runtime = "onnxruntime"        # onnxruntime, ncnn, litert, native, or auto: the fastest
policy = {policy:<21} # standard: 3 processes of 1 s each; quick: 0.12 s, and labelled as quick
threads = 1

[search]
sampler = "price-aware"        # price-aware; or Optuna's tpe, nsga2, gp, random

[engine]
workers = {template.workers:<20} # trainings at a time
threads = 1                    # of each training
device = "auto"                # auto, cpu, cuda or mps

[limits]
# trial_time_s = 3600
checkpoint_every_s = 30

[retention]
checkpoints = "none"           # last: keep those of finished trials
networks = "all"               # front: remove the files of dominated trials
"""


def study_file(preset: str, name: str, max_latency_ms: float | None = None) -> str:
    """Return a commented study file for a preset: digits, cifar or imagenet-mobile."""
    if preset not in TEMPLATES:
        raise InvalidSettings(f"no preset is called {preset!r}; there are {', '.join(TEMPLATES)}.")
    template = TEMPLATES[preset]
    policy = f'"{template.latency_policy}"'
    limit = "# max_latency_ms = 10.0        # on the device; the upper end of the 95 % interval counts"
    if max_latency_ms is not None:
        limit = f"max_latency_ms = {max_latency_ms:<13.4g} # the upper end of the 95 % interval counts"
    return _STUDY_FILE.format(template=template, name=name, limit=limit, policy=policy)
