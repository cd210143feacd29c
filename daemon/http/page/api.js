// Requests to the worker, with the token and the tenant of this tab.

const TIMEOUT_MS = 20_000;
export const session = {
  token: sessionStorage.getItem("inferd-token"),
  tenant: sessionStorage.getItem("inferd-tenant"),
  keep(name, value) {
    this[name] = value;
    if (value) sessionStorage.setItem(`inferd-${name}`, value);
    else sessionStorage.removeItem(`inferd-${name}`);
  },
};

export class ApiError extends Error {
  constructor(status, code, message) { super(message); this.status = status; this.code = code; }
}

// The response of a path, decoded; `sized` is called with its length; an `ApiError` with the code and message of the worker, or with code `no_response`.
export async function ask(path, {method = "GET", body, type, timeout = TIMEOUT_MS, text = false, sized} = {}) {
  const headers = {};
  if (session.token) headers.authorization = "Bearer " + session.token;
  if (session.tenant && !path.startsWith("/cluster")) headers["inferd-tenant"] = session.tenant;
  if (method !== "GET") headers["inferd-request"] = "1";
  if (body !== undefined && !(body instanceof FormData)) headers["content-type"] = type ?? "application/json";
  const raw = body === undefined || type || body instanceof FormData ? body : JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, {method, headers, body: raw, cache: "no-store", signal: AbortSignal.timeout(timeout)});
  } catch (error) {
    throw new ApiError(0, "no_response", error.name === "TimeoutError" ? `no answer within ${timeout / 1000} s` : "no connection to the worker");
  }
  const said = await answer.text();
  sized?.(said.length);
  if (answer.ok && text) return said;
  let value;
  try { value = JSON.parse(said); } catch { value = null; }
  if (!answer.ok) throw new ApiError(answer.status, value?.error?.code ?? "error", value?.error?.message ?? `status ${answer.status}`);
  return value;
}

export const name = text => encodeURIComponent(text);
