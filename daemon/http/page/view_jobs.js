// Batch jobs: the newest first, each with its progress.

import {ask, name} from "/page/api.js";
import {button, jobAction, submitJob} from "/page/actions.js";
import {card, empty, h, link, table, titleUnder} from "/page/dom.js";
import {ago, compact, decimal, moment, plural, span, whole} from "/page/format.js";
import {JOB_ENDED, jobSpeed, jobState, progress} from "/page/parts.js";

const LISTED_MAX = 1000, SHOWN_MAX = 200, ROWS_SHOWN = 20;
let filter = "";
export const title = url => url.parts[1] ? `Job ${url.parts[1]}` : "Jobs";
export const every = 2000;

export async function load(url) {
  const id = url.parts[1];
  if (!id) return ask(`/jobs?limit=${LISTED_MAX}`);
  const job = await ask(`/jobs/${name(id)}`);
  return {job, results: JOB_ENDED.has(job.status) && job.processed ? await firstRows(id).catch(error => error.message) : null};
}

let known = {id: null, rows: null};
async function firstRows(id) {
  if (known.id === id) return known.rows;
  const text = await ask(`/jobs/${name(id)}/results`, {text: true, timeout: 20_000});
  known = {id, rows: text.split("\n", ROWS_SHOWN).filter(Boolean)};
  return known.rows;
}

export function render(url, context, data) {
  return url.parts[1] ? one(context, data) : all(context, data.jobs);
}

function actions(context, job) {
  return h("span", {class: "buttons"}, !JOB_ENDED.has(job.status) && button(context, "predict operate", "Cancel", () => jobAction(context, job, "cancel")),
    job.status === "completed_with_errors" && button(context, "predict operate", "Retry", () => jobAction(context, job, "retry")));
}

function all(context, jobs) {
  const models = [...new Set(context.cluster.models.map(each => each.model_id))];
  const submit = button(context, "predict", "Submit a job", () => submitJob(context, models), "");
  if (!jobs.length) return [h("h1", {}, "Jobs"), card(null, empty("No jobs", h("p", {}, "A job scores many rows as one unit of work, with a status and a result for every row."), submit,
    h("pre", {}, "inferd jobs submit churn rows.csv --wait")))];
  const found = jobs.filter(job => `${job.job_id} ${job.model_id} ${job.status}`.includes(filter)).sort((a, b) => JOB_ENDED.has(a.status) - JOB_ENDED.has(b.status) || b.submitted_at - a.submitted_at);
  return [h("h1", {}, "Jobs", h("span", {class: "faint"}, `${plural(jobs.length, "job")}${jobs.length >= LISTED_MAX ? " (the first by id)" : ""}`), h("span", {class: "spacer"}), submit,
      h("input", {type: "search", placeholder: "Filter (/)", "aria-label": "Filter jobs", oninput: event => { filter = event.target.value; context.redraw(); }})),
    card(null, table([["job"], ["model"], ["status"], ["progress"], ["rows/s", "number"], ["failed", "number"], ["submitted", "extra"], ["took", "number extra"], ["", "do"]],
      found.slice(0, SHOWN_MAX).map(job => ({key: job.job_id, cells: [link(`#/jobs/${name(job.job_id)}`, job.job_id), job.model_id ? `${job.model_id}:${job.version ?? "?"}` : "–", jobState(job), progress(job),
        compact(jobSpeed(job)), compact(job.failed), h("span", {title: moment(job.submitted_at)}, ago(job.submitted_at)), job.started_at ? span(((job.finished_at ?? Date.now()) - job.started_at) / 1000) : "–",
        actions(context, job)]})), "no job matches the filter"))];
}

function one(context, {job, results}) {
  const fact = (title, value) => value == null ? null : [h("dt", {}, title), h("dd", {}, value)];
  return [titleUnder("#/jobs", "Jobs", job.job_id, jobState(job), actions(context, job)),
    card(null, progress(job), h("dl", {class: "facts"}, fact("model", job.model_id && link(`#/models/${name(job.model_id)}`, `${job.model_id}:${job.version ?? "?"}`)),
      fact("error", job.error && `${job.error.message} (${job.error.code})`), fact("rows", `${whole(job.input_count)} received, ${whole(job.succeeded)} succeeded, ${whole(job.failed)} failed`),
      fact("chunks", `${whole(job.chunks_done)} of ${whole(job.chunks_total)}`), fact("speed", `${decimal(jobSpeed(job))} rows/s`), fact("submitted", moment(job.submitted_at)), fact("started", job.started_at && moment(job.started_at)),
      fact("finished", job.finished_at && moment(job.finished_at)), fact("retries", job.attempt), fact("labels", job.labels && JSON.stringify(job.labels)), fact("missing", job.missing && JSON.stringify(job.missing)))),
    results && card([`First results`, link(`/jobs/${name(job.job_id)}/results`, "all (NDJSON)")], typeof results === "string" ? h("p", {class: "problem"}, results) : h("pre", {}, results.join("\n")))];
}
