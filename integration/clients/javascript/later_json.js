// Queues a job under an id of its own and reads the outcome from the stream later: JSON.
import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import { connect, headers } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";

const connection = await connect({ servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222" });
const [job, id] = [headers(), randomUUID()];
job.set("Infer-Job-Id", id);
const body = JSON.stringify({ instances: [JSON.parse(process.argv[2])] });
await jetstream(connection).publish("infer.jobs.digits.normal", body, { headers: job });
const results = (await jetstreamManager(connection, { checkAPI: false })).direct;
const read = () => results.getMessage("INFER_RESULTS", { last_by_subj: `infer.results.${id}` });
let outcome; // Any time within a day, from any connection.
while (!(outcome = await read())) await setTimeout(100);
console.log(outcome.header.get("Infer-Status"), outcome.json().predictions[0].label);
await connection.close();
