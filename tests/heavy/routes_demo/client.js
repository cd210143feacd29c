// A client of Kafka that knows nothing of inferd: kafkajs, which is written in JavaScript alone.
//
//   node client.js produce BROKER TOPIC           reads lines of JSON {"key", "value"}, and writes records in JSON
//   node client.js read BROKER TOPIC COUNT URL    writes the values of records in Avro as lines of JSON
"use strict";

const readline = require("node:readline");
const { Kafka, logLevel } = require("kafkajs");
const { SchemaRegistry } = require("@kafkajs/confluent-schema-registry");

const BATCH = 1000;

function connect(broker) {
  return new Kafka({ clientId: "shop", brokers: [broker], logLevel: logLevel.ERROR });
}

async function produce(broker, topic) {
  const producer = connect(broker).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  let messages = [];
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { key, value } = JSON.parse(line);
    messages.push({ key, value: JSON.stringify(value) });
    if (messages.length === BATCH) {
      await producer.send({ topic, messages });
      messages = [];
    }
  }
  if (messages.length > 0) {
    await producer.send({ topic, messages });
  }
  await producer.disconnect();
}

async function read(broker, topic, count, url) {
  const registry = new SchemaRegistry({ host: url });
  const consumer = connect(broker).consumer({ groupId: `reader-of-${topic}` });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const values = [];
  await new Promise((resolve, reject) => {
    const run = consumer.run({
      eachMessage: async ({ message }) => {
        values.push(await registry.decode(message.value));
        if (values.length === count) {
          resolve();
        }
      },
    });
    run.catch(reject);
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
  });
  await consumer.disconnect();
  process.stdout.write(values.map((value) => JSON.stringify(value) + "\n").join(""));
}

const [what, broker, topic, count, url] = process.argv.slice(2);
const done = what === "produce" ? produce(broker, topic) : read(broker, topic, Number(count), url);
done.catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
