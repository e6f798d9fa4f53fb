"""Train in a loop of your own and let Esper watch: an external run, with nothing but PyTorch and the standard library.

    export ESPER_URL=http://127.0.0.1:8000
    export ESPER_TOKEN=esper_...    # from: manage.py issue_token NAME --name example --scope runs:write
    python docs/examples/external_run.py --epochs 20

The rules that any client follows:

1. Take the run with a heartbeat. The answer holds a fencing token: present it with every write.
2. Keep sending heartbeats, from a thread of their own, so that a long epoch does not look like a death. They bring
   back the command that people gave the run: CONTINUE, PAUSE or STOP.
3. 409 `lease_lost` means that the run was taken for dead: stop at once, write nothing more.
4. Number the events from `last_sequence` + 1 and send them again after any failure: what is stored already is ignored.
"""

import argparse
import json
import os
import socket
import sys
import threading
import urllib.error
import urllib.request
import uuid
from typing import Any

import torch
from torch import nn

RETRIES = 5
wait = threading.Event().wait


class Refused(Exception):
    """The server said no (RFC 9457): trying again would not help."""

    def __init__(self, problem: dict[str, Any]) -> None:
        fields = "".join(f"\n  {error['pointer']}: {error['detail']}" for error in problem.get("errors", []))
        super().__init__(f"{problem['status']} {problem['code']}: {problem['detail']}{fields}")
        self.code = problem["code"]


class Api:
    """POST with a bearer token and an Idempotency-Key: a request that is sent again is not done again."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Raises Refused; OSError when the server stays away."""
        request = urllib.request.Request(
            self._url + path,
            data=json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
                "Idempotency-Key": str(uuid.uuid4()),
            },
        )
        for attempt in range(RETRIES):
            try:
                with urllib.request.urlopen(request, timeout=10) as response:
                    answer: dict[str, Any] = json.load(response)
                    return answer
            except urllib.error.HTTPError as error:
                if error.code not in {429, 503} or attempt == RETRIES - 1:
                    raise Refused(json.load(error)) from None
                wait(float(error.headers.get("Retry-After", 2**attempt)))
            except OSError:
                if attempt == RETRIES - 1:
                    raise
                wait(2**attempt)
        raise AssertionError("unreachable")


class Run:
    """One external run: taken, kept alive by a thread, and written to in the order of the events."""

    def __init__(self, api: Api, path: str) -> None:
        self.command = "CONTINUE"
        self.lost: Refused | None = None
        self._api, self._path = api, path
        self._unsent: list[dict[str, Any]] = []
        lease = api.post(f"{path}/heartbeat", {"holder": f"{socket.gethostname()} {os.getpid()}"})
        self._token: int = lease["fencing_token"]
        self._sequence: int = lease["last_sequence"]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._stay_alive, daemon=True)
        self._thread.start()

    def _stay_alive(self) -> None:
        while not self._ended.wait(2.0):
            try:
                lease = self._api.post(f"{self._path}/heartbeat", {"fencing_token": self._token})
            except Refused as refused:
                self.lost = refused
                return
            except OSError:
                continue  # the server may come back before the lease runs out
            self.command = lease["command"]

    def record(self, kind: str, **values: Any) -> None:
        """Send an event, and those before it that could not be sent. Raises Refused when the run is lost."""
        if self.lost is not None:
            raise self.lost
        self._sequence += 1
        self._unsent.append({"type": kind, "sequence": self._sequence, **values})
        try:
            self._api.post(f"{self._path}/events", {"fencing_token": self._token, "events": self._unsent})
        except OSError:
            return  # goes with the next one
        self._unsent.clear()

    def finish(self, state: str, **more: Any) -> None:
        self._ended.set()
        self._thread.join()
        self._api.post(f"{self._path}/finish", {"fencing_token": self._token, "state": state, **more})


def make_data(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes in the plane, divided by a circle: inputs [512, 2], labels [512]."""
    points = torch.rand(512, 2, generator=generator) * 2 - 1
    return points, (points.square().sum(dim=1) < 0.5).long()


def train(run: Run, *, epochs: int, seed: int) -> str:
    """A plain PyTorch loop; returns the state in which it ends."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    x, y = make_data(generator)
    held_out_x, held_out_y = make_data(generator)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    flops = step = 0
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in torch.randperm(len(x), generator=generator).split(64):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
            step += 1
            flops += 6 * parameters * len(batch)
            if run.command == "STOP":
                return "CANCELLED"
        with torch.no_grad():
            logits = model(held_out_x)
        run.record(
            "epoch",
            epoch=epoch,
            step=step,
            train_loss=total / len(x),
            validation_loss=nn.functional.cross_entropy(logits, held_out_y).item(),
            validation_accuracy=(logits.argmax(dim=1) == held_out_y).float().mean().item(),
            parameters=parameters,
            train_flops=flops,
            learning_rate=optimizer.param_groups[0]["lr"],
        )
        if run.command == "PAUSE":
            return "PAUSED"
    return "COMPLETED"


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a small network of our own and report it to Esper.")
    parser.add_argument("--url", default=os.environ.get("ESPER_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    api = Api(options.url, os.environ.get("ESPER_TOKEN", ""))
    settings = {"task": "circle", "host": "my mlp", "epochs": options.epochs, "seed": options.seed}
    try:
        created = api.post("/api/v1/runs", {"kind": "external", "name": "my own loop", "settings": settings})
        run = Run(api, f"/api/v1/runs/{created['id']}")
        state = train(run, epochs=options.epochs, seed=options.seed)
        run.finish(state)
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"run": created["id"], "state": state}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
