"""Averages the weights of stages that went on from one start, or one from the other (a model soup, Wortsman et al.,
2022): what the later one learned is kept, what it forgot comes back.

    python -m training.checkpoint.average round2a round2b    # becomes the stage `average`, which export prefers
"""

import torch

from training.arguments import parser_of
from training.checkpoint.stage_files import load_part
from training.paths import RUNS


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("stages", nargs="+")
    parser.add_argument("--stage", default="average", help="what the mean becomes")
    args = parser.parse_args()
    states = [load_part(stage, "") for stage in args.stages]
    mean = {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}
    target = RUNS / args.stage / "last.pt"
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"module": mean}, target)
    print(f"the mean of {', '.join(args.stages)} is the stage {args.stage} now")


if __name__ == "__main__":
    main()
