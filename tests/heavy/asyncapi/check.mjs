// Parses an AsyncAPI document, the file of the first argument, with AsyncAPI's own parser. Prints as JSON the errors and
// warnings, and the number of channels, operations and messages that the parser found.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.cwd() + "/"));
const { Parser } = require("@asyncapi/parser");

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const problems = diagnostics
  .filter(({ severity }) => severity <= 1)
  .map(({ code, path, message }) => `${code} ${path.join("/")}: ${message}`);
const found = document
  ? { channels: document.channels().length, operations: document.operations().length, messages: document.messages().length }
  : null;
console.log(JSON.stringify({ problems, found }));
