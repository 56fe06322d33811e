// Queues a job under an id of its own and reads the outcome from the stream later: CBOR.
import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { connect, headers } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { decode, encode } from "cbor-x";

const connection = await connect({ servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222" });
const [job, id] = [headers(), randomUUID()];
job.set("Infer-Job-Id", id);
const data = Buffer.from(Float32Array.from(JSON.parse(process.argv[2])).buffer);
const body = encode({ inputs: [{ name: "input", datatype: "FP32", shape: [1, 64], data }] });
await jetstream(connection).publish("infer.jobs.digits.normal", body, { headers: job });
const results = (await jetstreamManager(connection, { checkAPI: false })).direct;
const read = () => results.getMessage("INFER_RESULTS", { last_by_subj: `infer.results.${id}` });
let outcome; // Any time within a day, from any connection.
while (!(outcome = await read())) await setTimeout(100);
const label = decode(outcome.data).outputs.find((output) => output.name === "label");
console.log(outcome.header.get("Infer-Status"), Number(label.data.readBigInt64LE()));
await connection.close();
