"""Once: the committed cells' keys, from a hash of `repr(recipe)` and all parameters to `sglib.identity`'s.

A file is written only if its key is the one that was computed for its planned recipe and parameters until now; nothing
but that value changes in it.
"""

import dataclasses
import hashlib
import json

from sglib.records import write_atomic
from sglib.runs import repo_root
from sglib.training.arms import arm_recipe
from sglib.training.evidence import REFERENCE, plan


def former_key(cell) -> str:
    without = {"arms", "run", "size", "output_dir", "win_reward", "batch_size", "report_to"}
    fixed = cell.params.model_dump(exclude=without)
    fixed["recipe"] = repr(dataclasses.replace(arm_recipe(cell.recipe, cell.params), about=""))
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:12]


folder = repo_root() / "outputs" / REFERENCE
cells = plan(repo_root() / "params" / "full.yaml")
assert {f"{cell.name}.json" for cell in cells} == {path.name for path in folder.glob("*.json")}
changed = {}
for cell in cells:
    path = folder / f"{cell.name}.json"
    content, old, new = path.read_bytes(), former_key(cell), cell.key
    before, after = (f'"key": "{key}"'.encode() for key in (old, new))
    assert json.loads(content)["key"] == old and content.count(before) == 1, path
    changed[path] = content.replace(before, after)
    assert json.loads(changed[path]) == json.loads(content) | {"key": new}
assert len({cell.key for cell in cells}) == len(cells)
for path, content in changed.items():
    write_atomic(path, content)
print(f"{len(changed)} cells")
