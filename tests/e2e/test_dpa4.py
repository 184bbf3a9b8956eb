"""The whole chain with a DPA-4: fine-tuned by low-rank adapters, explored with ASE, distilled for LAMMPS."""

from e2e.jobs import COPPER, finish, results_of
from e2e.test_distill import STUDENT
from models import tiny_checkpoint

from pfdhpc.cli.main import main

SECOND = """
[distill.init]
frames = 6
[distill.train]
first_steps = 20
steps = 20
[distill.converge]
force_rmse = 1e-6
max_rounds = 1
"""


def test_a_dpa4_is_fine_tuned_and_distilled_in_one_job(tmp_path, capsys):
    from ase.build import bulk
    from ase.io import write

    write(tmp_path / "cu.vasp", bulk("Cu", cubic=True), format="vasp")
    model = tiny_checkpoint(tmp_path / "given", ("Cu", "Al"), branches=("a", "b"), descriptor="dpa4")
    text = COPPER.format(model=model, branch="b", rounds=1).replace('"finetune"', '"pfd"')
    text = text.replace("[train]", '[train]\ntype = "dpa4"\nlora.rank = 2').replace("steps = 40", "steps = 20")
    path = tmp_path / "input.toml"
    path.write_text(text + STUDENT + SECOND)
    output = finish(path)
    assert (tmp_path / "run" / "finetune" / "final" / "model.pt").is_file()
    assert "teacher (ASE)" in output and "student vs teacher" in output
    final = tmp_path / "run" / "distill" / "final"
    results = results_of(tmp_path / "run" / "distill")
    assert results["production"]["product"].startswith("compressed") and (final / "model.pth").is_file()
    facts = [results_of(tmp_path / "run" / "finetune"), results]
    assert facts[0]["finetuned"]["total"]["force"] > 0 and facts[1]["test_data"]["teacher"]["total"]["force"] > 0
    assert main(["report", str(tmp_path / "run" / "finetune"), "-o", str(tmp_path / "report.html")]) == 0
    assert "dp --pt freeze" in (tmp_path / "run" / "finetune" / "final" / "MODEL_CARD.md").read_text()
