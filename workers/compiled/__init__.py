"""The dense layers of a training, compiled for this machine's processor: several times as fast as the same in torch."""
