// The producer in Node: sends the records of a plan with kafkajs, and prints the position of each.
"use strict";

const http = require("node:http");
const readline = require("node:readline");
const { CloudEvent, Kafka: binding } = require("cloudevents");
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require("kafkajs");
const { SchemaRegistry } = require("@kafkajs/confluent-schema-registry");
const lz4 = require("lz4-napi");
const zstd = require("@mongodb-js/zstd");

// kafkajs has gzip; its users add the others.
CompressionCodecs[CompressionTypes.Snappy] = require("kafkajs-snappy");
CompressionCodecs[CompressionTypes.LZ4] = () => ({ compress: (encoder) => lz4.compressFrame(encoder.buffer) });
CompressionCodecs[CompressionTypes.ZSTD] = () => ({ compress: (encoder) => zstd.compress(encoder.buffer, 3) });
const CODECS = { none: "None", gzip: "GZIP", snappy: "Snappy", lz4: "LZ4", zstd: "ZSTD" };
const BATCH_JSON = "application/cloudevents-batch+json; charset=utf-8";

// A registry with one schema that everything fits, whatever its id: the client frames nothing without a registry.
async function openRegistry() {
  const answer = JSON.stringify({ schemaType: "JSON", schema: JSON.stringify({ title: "Any" }) });
  const server = http.createServer((_, response) => {
    response.writeHead(200, { "content-type": "application/vnd.schemaregistry.v1+json" }).end(answer);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const host = `http://127.0.0.1:${server.address().port}`;
  return { server, registry: new SchemaRegistry({ host }) };
}

function cloudEvent(order) {
  const made = { ...order.attributes };
  if (order.content_type !== null) made.datacontenttype = order.content_type;
  if (order.content !== "none") {
    if (order.base64) made.data_base64 = Buffer.from(JSON.stringify(order.data)).toString("base64");
    else made.data = order.data;
  }
  return new CloudEvent(made);
}

// In binary mode the SDK leaves the data as it is, and an unset attribute as undefined; neither is for kafkajs.
function binary(event) {
  const message = binding.binary(event);
  const set = Object.entries(message.headers).filter(([, value]) => value !== undefined && value !== null);
  const headers = Object.fromEntries(set.map(([name, value]) => [name, String(value)]));
  const isData = message.value !== undefined;
  const raw = typeof message.value === "string" || message.value instanceof Uint8Array;
  const value = isData ? (raw ? Buffer.from(message.value) : JSON.stringify(message.value)) : null;
  return { key: message.key, headers, value };
}

function structured(event) {
  const { key, headers, value } = binding.structured(event);
  return { key, headers, value };
}

async function encoded(order, registry) {
  if (order.content === "batch") {
    const batch = [cloudEvent(order), cloudEvent(order)];
    const headers = { "content-type": BATCH_JSON };
    return { headers, value: JSON.stringify(batch) };
  }
  switch (order.form) {
    case "plain":
      return { value: JSON.stringify(order.data) };
    case "binary":
      return binary(cloudEvent(order));
    case "structured":
      return structured(cloudEvent(order));
    case "framed":
      return { value: await registry.encode(order.schema_id, order.data) };
    case "named": {
      // the schema's id in a header, as a magic byte and a GUID
      const id = Buffer.from("\x010123456789abcdef");
      return { headers: { __value_schema_id: id }, value: JSON.stringify(order.data) };
    }
    default:
      throw new Error(order.form);
  }
}

async function message(order, registry) {
  if (order.content === "null") return { key: order.key, value: null, partition: order.partition };
  const made = { key: order.key, ...(await encoded(order, registry)) };
  const key = made.key ?? order.key; // the SDK's key is the extension partitionkey
  const value = typeof made.value === "string" ? Buffer.from(made.value) : made.value;
  return { ...made, key, value: cut(value, order.content), partition: order.partition };
}

function cut(value, content) {
  if (content === "empty") return Buffer.alloc(0);
  if (content === "cut") return value.subarray(0, Math.floor(value.length / 2));
  return content === "head" ? value.subarray(0, 5) : value;
}

// Send records of one topic and codec; kafkajs makes one batch of each partition and tells where it begins.
async function send(producer, orders, registry) {
  const [{ topic, codec }] = orders;
  const messages = await Promise.all(orders.map((order) => message(order, registry)));
  const answers = await producer.send({ topic, messages, acks: -1, compression: CompressionTypes[CODECS[codec]] });
  for (const answer of answers) {
    const mine = orders.filter((order) => order.partition === answer.partition);
    mine.forEach(({ number }, index) => {
      const offset = Number(answer.baseOffset) + index;
      console.log(JSON.stringify({ number, topic, partition: answer.partition, offset }));
    });
  }
}

async function main() {
  const { server, registry } = await openRegistry();
  const kafka = new Kafka({ brokers: process.argv[2].split(","), clientId: "foreign", logLevel: logLevel.ERROR });
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  let together = [];
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    const [first] = together;
    if (first && (first.topic !== order.topic || first.codec !== order.codec)) {
      await send(producer, together, registry);
      together = [];
    }
    together.push(order);
  }
  if (together.length) await send(producer, together, registry);
  await producer.disconnect();
  server.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
