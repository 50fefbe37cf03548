"""Entry point of every stage and command: `python -m tasks train unet 0`.

Import-light: in a flow, a stage continues in a fork (tasks/forkserver/client.py) before anything slow is imported.
"""

import sys
from importlib import import_module

from tasks.forkserver import client
from tasks.interruption import report_in_one_line

COMMANDS = {
    "init": "look at a folder and write the section data of params.yaml",
    "ingest": "check images and masks, pack them, write the data card",
    "plan": "decide the settings that are auto in params.yaml from the data",
    "prepare": "assign splits, fit statistics, list the training windows",
    "train": "train one architecture with one seed",
    "evaluate": "score one trained model on the test regions",
    "ensemble": "average the predictions of trained models, and score them",
    "compare": "compare all evaluations: intervals, tests, ranks and verdict",
    "report": "write the comparison as one HTML page",
    "receive": "add new files of the inbox to the data as a batch",
    "promote": "compare the models with the champion and update the registry",
    "registry": "compare the model registry with the records, or restore one from the other",
    "predict": "predict new scenes with any model",
    "export": "write any model as a file of another format, such as ONNX",
    "complete": "add the sections that params.yaml lacks, and check the networks",
    "configure": "merge an example into params.yaml",
    "transfer": "start trainings from the weights of a model of other data",
    "lr-range": "find learning rates by a range test",
    "clean": "free disk space: old runs, cached objects, leftovers",
    "measure": "measure latency and memory of models on this machine",
}


def usage() -> str:
    """Usage text: one line per command."""
    lines = [f"  {name:<10} {help_text}" for name, help_text in COMMANDS.items()]
    return "usage: python -m tasks COMMAND [--help] ...\n\ncommands:\n" + "\n".join(lines)


def main() -> None:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        print(f"{usage()}\n\nError: {name or 'no command'}: not a command", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    # imported late, as the commands
    from tasks.project import enter_experiment

    enter_experiment()
    import_module(f"tasks.{name.replace('-', '_')}").main()


if __name__ == "__main__":
    report_in_one_line()
    client.run_in_fork()
    main()
