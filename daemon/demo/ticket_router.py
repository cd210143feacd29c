"""The second part of the demo: a text classifier of scikit-learn, on the same broker and worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.text import Text

from inferd.client import Client
from inferd.daemon.demo.narration import Narrator
from inferd.daemon.demo.tickets import Tickets, load_tickets
from inferd.daemon.demo.traffic import Burst, burst
from inferd.schemas.requests import Output, Prediction
from inferd.streams.inference import manifest_of

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

MODEL = "ticket-language"
ACCURACY_MIN = 0.9
OUTPUTS: tuple[Output, ...] = ("prediction", "probabilities")
SHOWN_TICKETS = 10
TEXT_CHARS = 52
TERMS = 2**14
READY_TIMEOUT_S = 300.0
"""The worker imports scikit-learn for its first model of it."""


@dataclass(frozen=True, slots=True)
class Router:
    """A fitted pipeline, and its `.skops` file."""

    pipeline: Pipeline
    content: bytes


async def route_tickets(narrator: Narrator, client: Client) -> None:
    """Trains and deploys the classifier, sends the held-out tickets as requests, and compares the results."""
    narrator.title("Which language is this ticket in?", "Real texts, for the team that reads them, by the same worker")
    with narrator.step("text", "reading tickets") as step:
        tickets, held_out = await asyncio.to_thread(load_tickets)
        languages = sorted(set(tickets.languages))
        step.say(f"{len(tickets) + len(held_out):,} texts that people wrote, in {len(languages)} languages")
    with narrator.step("train", "training scikit-learn") as step:
        router = await asyncio.to_thread(train, tickets)
        step.say(f"scikit-learn: TF-IDF of up to three letters and a linear model, on {len(tickets):,} of the texts")
    with narrator.step("deploy", "writing the model to Kafka") as step:
        manifest = await client.deploy_model(router.content, manifest_of(router.content, MODEL, version=1))
        step.say(f"{MODEL}:1, a .skops file of {manifest.size / 1_000:.0f} kB, with {len(languages)} class labels")
    rows = [[text] for text in held_out.texts]
    with narrator.step("stream", "requests of one text each") as step:
        # The client retries this request until the worker serves the model.
        await client.predict(MODEL, rows[0], timeout_s=READY_TIMEOUT_S)
        results = await burst(client, MODEL, rows, OUTPUTS)
        step.say(f"{len(rows):,} requests of one text each: {results.requests_per_s:,.0f} requests/s")
    _check(narrator, router, held_out, results)


def train(tickets: Tickets) -> Router:
    """A classifier of languages by the letters of a text."""
    import skops.io
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    letters = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 3), n_features=TERMS, norm=None, alternate_sign=False
    )
    linear = SGDClassifier(loss="log_loss", alpha=1e-5, random_state=1)
    pipeline = make_pipeline(letters, TfidfTransformer(sublinear_tf=True), linear)
    pipeline.fit(tickets.texts, tickets.languages)
    return Router(pipeline, skops.io.dumps(pipeline))


def _check(narrator: Narrator, router: Router, tickets: Tickets, results: Burst) -> None:
    """Compares labels and probabilities with the true languages, and with scikit-learn itself."""
    predictions = [result for result in results.results if isinstance(result, Prediction)]
    count = len(tickets)
    narrator.check(f"every ticket has a label: {len(predictions):,} of {count:,}", len(predictions) == count)
    if len(predictions) != count:
        return
    labels = [prediction.outputs["prediction"] for prediction in predictions]
    probabilities = [prediction.outputs["probabilities"] for prediction in predictions]
    _show(narrator, tickets, labels, probabilities)
    accuracy = np.mean([label == truth for label, truth in zip(labels, tickets.languages, strict=True)])
    narrator.check(f"{accuracy:.1%} of the tickets are routed to their language", bool(accuracy > ACCURACY_MIN))
    answers = (router.pipeline.predict(tickets.texts), router.pipeline.predict_proba(tickets.texts))
    expected = zip(*(values.tolist() for values in answers), strict=True)
    same = sum(got == own for got, own in zip(zip(labels, probabilities, strict=True), expected, strict=True))
    narrator.check(
        f"labels and probabilities equal scikit-learn's own bit for bit: {same:,} of {count:,}", same == count
    )


def _show(
    narrator: Narrator, tickets: Tickets, labels: Sequence[str], probabilities: Sequence[Sequence[float]]
) -> None:
    """Shows an even sample of the tickets, with labels and true languages."""
    rows: list[list[Any]] = []
    for place in np.linspace(0, len(tickets) - 1, min(SHOWN_TICKETS, len(tickets)), dtype=int).tolist():
        label, truth = labels[place], tickets.languages[place]
        mark = Text("✓", "green") if label == truth else Text("✗", "red")
        rows.append([Text(tickets.texts[place][:TEXT_CHARS]), f"{max(probabilities[place]):.3f}", label, truth, mark])
    narrator.table(f"{len(rows)} of {len(tickets):,} tickets", ("text", ">P(language)", "predicted", "truth", ""), rows)
