"""Search for small classifiers that read digits well, and say of each training why it was chosen.

    python -m examples.known_costs [--trainings 20] [--seed 0]

It takes seconds. `digits` holds the objective and all that the sampler is told; `pictures` draws such a search.
"""

from __future__ import annotations

import argparse

import optuna

from examples.known_costs.arguments import whole_number
from examples.known_costs.digits import objective, study_with
from search.samplers.price_aware.belief import Choice


def why(choice: Choice | None) -> str:
    """Return why a candidate was proposed and what was predicted for it, with its 95 % interval."""
    if choice is None:
        return "at random"
    if choice.mean is None or choice.deviation is None:
        return str(choice.reason)
    # The model knows of no bounds; no accuracy is below 0 or above 100 %.
    low, mean, high = (min(max(choice.mean + 1.96 * off * choice.deviation, 0.0), 1.0) for off in (-1, 0, 1))
    return f"{choice.reason}, predicted {100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=whole_number(1), default=20)
    parser.add_argument("--seed", type=whole_number(0), default=0)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, sampler = study_with(options.seed)

    def say(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        accuracy, weights = trial.values
        print(f"trial {trial.number:>2}: {100 * accuracy:5.1f} %, {weights:>7,.0f} weights; {why(sampler.choice)}")

    study.optimize(objective, n_trials=options.trainings, callbacks=[say])
    print("\nno classifier is better and smaller than one of these:")
    for trial in sorted(study.best_trials, key=lambda trial: trial.values[1]):
        print(f"  {100 * trial.values[0]:5.1f} %, {trial.values[1]:>7,.0f} weights: {trial.params}")


if __name__ == "__main__":
    main()
