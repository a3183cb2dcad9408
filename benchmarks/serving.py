"""How does the service compare with plain ways to serve the same model, under the same stream?

(a) Our service, (b) a plain service around the stock pipeline, one image at a time, as BentoML's
examples have it, (c) the stock pipeline behind BentoML's adaptive batching, grouped with care; both
are in `baselines/`. First each is kept busy by more clients than it can serve: images a second.
Then the same Poisson stream comes to each at 70 % of what (b) managed: latency. Each is a fresh
`bentoml serve` every time, alone on the machine but for the client's process; rounds go a, b, c, a,
b, c; ratios are medians of each round's. One row more: (a) with prompts of up to 300 tokens, which
the others would cut at 77.

    python benchmarks/serving.py [--rounds 3] [--images 128] [--size PIXELS] [--stream alike]
        [--model DIRECTORY] [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import HERE, percentile, service_surroundings, write_result
from load import Answer, OwnProcess, Target, closed_loop, open_loop, own_process
from services import OtherWork, Running, Service, model_to_serve, our_service, running
from workload import Stream, poisson, requests

CLIENTS = 32
LOAD = 0.7  # of (b)'s throughput
WARM_UP_IMAGES = 32  # BentoML's batching learns from its first dozen calls, one by one
WARM_UP_STEPS = 4
UNBOUNDED = 100_000
OURS, PLAIN, BATCHABLE, LONG = "ours", "plain", "batchable", "ours, long prompts"
BARS = {  # ratio: (at least, at most)
    "throughput ours / plain": (2.0, None),
    "throughput ours / batchable": (1.3, None),
    "p95 ours / batchable": (None, 0.5),
}


@dataclass(frozen=True)
class Way:
    """One way to serve, and its endpoint.

    Attributes:
        service: from the model directory.
        target: where requests go.
        stream: what they are; None for the one that is chosen for all.
    """

    service: Callable[[Path], Service]
    target: Target
    stream: Stream | None = None


def ours(model: Path) -> Service:
    return our_service(model, max_queued_jobs=UNBOUNDED)  # as the baselines' queues are


def baseline(target: str) -> Callable[[Path], Service]:
    return lambda model: Service(target, HERE / "baselines", {"BASELINE_MODEL": str(model)})


WAYS: Mapping[str, Way] = {
    OURS: Way(ours, Target()),
    PLAIN: Way(baseline("plain_service:PlainService"), Target("/txt2img")),
    BATCHABLE: Way(
        baseline("batchable_service:BatchableService"),
        Target("/txt2img", wrap="requests", mark=b"iVBORw0"),  # a PNG in base64
    ),
    LONG: Way(ours, Target(), Stream.LONG),
}


@dataclass(frozen=True)
class Plan:
    """The options of a measurement.

    Attributes:
        model: its directory in a BentoML store.
        images: of one round of one way.
        size: of most images, pixels.
        threads: OMP_NUM_THREADS of the service.
        stream: what is asked.
        rounds: how often.
    """

    model: Path
    images: int
    size: int
    threads: int
    stream: Stream
    rounds: int

    def draw(self, way: Way, seed: int) -> list[dict[str, object]]:
        """Draw a round's requests; every way of one stream gets the same."""
        stream = requests(way.stream or self.stream, self.size, seed)
        return list(itertools.islice(stream, self.images))


class Bench:
    """The measurement of one way for one round, on a new service."""

    def __init__(
        self, plan: Plan, client: OwnProcess, ways: Mapping[str, Way] | None = None
    ) -> None:
        self.plan = plan
        self._ways = WAYS if ways is None else ways
        self._client = client
        self.device = "cpu"
        self.others: list[float] = []

    def throughput(self, name: str, seed: int) -> tuple[float, list[Answer]]:
        """Keep CLIENTS requests in flight; return images a second."""
        way = self._ways[name]

        def flood(server: Running) -> list[Answer]:
            drawn = self.plan.draw(way, seed)
            return self._client.run(closed_loop, server.url, way.target, drawn, CLIENTS)

        answers = self._with(way, flood)
        per_second = sum(a.status == 200 for a in answers) / max(a.done_s for a in answers)
        print(f"  {name}: {per_second:.3f} images/s, {self._note(answers)}", flush=True)
        return per_second, answers

    def latency(self, name: str, seed: int, per_second: float) -> list[Answer]:
        """Send the stream at a rate, independently of the answers."""
        way = self._ways[name]

        def stream(server: Running) -> list[Answer]:
            drawn = self.plan.draw(way, seed)
            arrivals = poisson(iter(drawn), per_second, self.plan.images, seed)
            return self._client.run(open_loop, server.url, way.target, arrivals)

        answers = self._with(way, stream)
        p50, p95 = percentiles(answers)
        print(f"  {name}: p50 {p50:.2f} s, p95 {p95:.2f} s, {self._note(answers)}", flush=True)
        return answers

    def _note(self, answers: Sequence[Answer]) -> str:
        statuses = dict(sorted(Counter(answer.status for answer in answers).items()))
        return f"statuses {statuses}, others had {self.others[-1]:.0%} of the machine"

    def _with(self, way: Way, work: Callable[[Running], list[Answer]]) -> list[Answer]:
        plan = self.plan
        with running(way.service(plan.model), plan.model, plan.threads) as server:
            stream = requests(plan.stream, plan.size, seed=0)
            warm_up = [
                request | {"num_inference_steps": WARM_UP_STEPS}
                for request in itertools.islice(stream, WARM_UP_IMAGES)
            ]
            self._client.run(closed_loop, server.url, way.target, warm_up, CLIENTS // 2)
            if way is self._ways[OURS]:
                self.device = str(server.ask("/info")["device"])
            others = OtherWork()
            answers = work(server)
            self.others.append(others.share())
            return answers


def percentiles(answers: Sequence[Answer]) -> tuple[float, float]:
    seconds = [answer.seconds for answer in answers if answer.status == 200]
    return percentile(seconds, 50), percentile(seconds, 95)


def paired(mine: Sequence[float], theirs: Sequence[float]) -> dict[str, object]:
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    return {"median": round(statistics.median(ratios), 2), "all": [round(r, 2) for r in ratios]}


def rounded(values: Sequence[float]) -> dict[str, object]:
    return {
        "median": round(statistics.median(values), 3),
        "all": [round(value, 3) for value in values],
    }


def is_met(name: str, ratio: float) -> bool:
    at_least, at_most = BARS[name]
    return (at_least is None or ratio >= at_least) and (at_most is None or ratio <= at_most)


def measure(plan: Plan, client: OwnProcess) -> dict[str, object]:
    """Measure throughput in rounds, then latency in rounds."""
    bench = Bench(plan, client)
    per_second: dict[str, list[float]] = {name: [] for name in WAYS}
    latencies: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    errors: Counter[str] = Counter(dict.fromkeys(WAYS, 0))
    for number in range(1, plan.rounds + 1):
        print(f"round {number} of {plan.rounds}: {CLIENTS} requests in flight", flush=True)
        for name in WAYS:
            value, answers = bench.throughput(name, seed=number)
            per_second[name].append(value)
            errors[name] += sum(answer.status != 200 for answer in answers)
    rate = LOAD * statistics.median(per_second[PLAIN])
    for number in range(1, plan.rounds + 1):
        print(f"round {number} of {plan.rounds}: {rate:.2f} requests a second", flush=True)
        for name in WAYS:
            answers = bench.latency(name, number, rate)
            latencies[name].append(percentiles(answers))
            errors[name] += sum(answer.status != 200 for answer in answers)
    p95 = {name: [values[1] for values in rounds] for name, rounds in latencies.items()}
    ratios = {
        "throughput ours / plain": paired(per_second[OURS], per_second[PLAIN]),
        "throughput ours / batchable": paired(per_second[OURS], per_second[BATCHABLE]),
        "throughput batchable / plain": paired(per_second[BATCHABLE], per_second[PLAIN]),
        "p95 ours / batchable": paired(p95[OURS], p95[BATCHABLE]),
        "p95 ours / plain": paired(p95[OURS], p95[PLAIN]),
    }
    return service_surroundings(bench.device, plan.threads) | {
        "stream": plan.stream,
        "size": f"{plan.size}x{plan.size}",
        "images_per_round": plan.images,
        "rounds": plan.rounds,
        "clients": CLIENTS,
        "arrivals_per_second": round(rate, 3),
        "images_per_second": {name: rounded(values) for name, values in per_second.items()},
        "p50_seconds": {name: rounded([v[0] for v in r]) for name, r in latencies.items()},
        "p95_seconds": {name: rounded(values) for name, values in p95.items()},
        "errors": errors,
        "others_share_of_cores": rounded(bench.others),
        "ratios": ratios,
        "bars_met": {name: is_met(name, float(str(ratios[name]["median"]))) for name in BARS}
        | {"no errors": not errors.total()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=128, help="of one round of one way")
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    parser.add_argument("--stream", type=Stream, choices=list(Stream), default=Stream.MIXED)
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="a few minutes; no result is kept")
    options = parser.parse_args()
    rounds, images = (1, 8) if options.quick else (options.rounds, options.images)
    with model_to_serve(options.model) as model, own_process() as client:
        plan = Plan(model, images, options.size, options.threads, options.stream, rounds)
        result = measure(plan, client)
    file = f"serving_{plan.stream}_{plan.size}"
    write_result(file, result, keep=not options.quick)


if __name__ == "__main__":
    main()
