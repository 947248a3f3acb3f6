"""A run in which everything that users name or return tries to leave its place on a page."""

import numpy as np
from journal_writer import LAYOUT, Writer, ended, event, finished, header, joined, left, lost, placed, stopping

EVIL = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>"\'&\u2028'


def hostile_run(path, n=60):
    """Write it; its names, values, hosts, metrics, reasons and options are hostile."""
    rng = np.random.default_rng(0)
    host = f"node{EVIL}"
    layout = {**LAYOUT, "hosts": [host] * 4}
    events = [joined(2, 0, host), joined(3, 0, host)]
    for i in range(n):
        rank = 2 + i % 2
        config = {f"x{EVIL}": float(rng.uniform()), "k": EVIL if i % 3 else f"{EVIL}b", "n": int(rng.integers(1, 9))}
        y = None if i % 7 == 3 else config[f"x{EVIL}"] + 0.1 * config["n"]
        events.append(placed(i, rank, i / 2, config))
        answer = finished(i, rank, i / 2, i / 2 + 0.4, y, metrics={f"m{EVIL}": EVIL, "loss": 0.5}, reason=EVIL)
        events.append({**answer, "host": host})
    events += [
        placed(n, 3, n / 2), left(3, n / 2 + 1, EVIL), {**lost(n, 3, n / 2 + 1), "host": host, "reason": EVIL},
        event("update", n / 2, reward_mean=0.5, entropy_share=0.9), stopping(n / 2 + 1, EVIL), ended(n / 2 + 2),
    ]  # fmt: skip
    writer = Writer(path, hyperparameters=[f"x{EVIL}", "k", "n"], problem=EVIL)
    return writer.begin(*events, head=header(layout=layout, max_evals=n, name=EVIL)).path
