// Queues a job and hears of its outcome at a reply address: CBOR.
import { connect, createInbox, headers } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { decode, encode } from "cbor-x";

const connection = await connect({ servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222" });
const inbox = createInbox();
const outcomes = connection.subscribe(inbox, { max: 1 });
const job = headers();
job.set("Infer-Reply-To", inbox);
const data = Buffer.from(Float32Array.from(JSON.parse(process.argv[2])).buffer);
const body = encode({ inputs: [{ name: "input", datatype: "FP32", shape: [1, 64], data }] });
await jetstream(connection).publish("infer.jobs.digits.normal", body, { headers: job });
for await (const outcome of outcomes) {
  const label = decode(outcome.data).outputs?.find((output) => output.name === "label");
  console.log(label ? Number(label.data.readBigInt64LE()) : decode(outcome.data).error);
}
await connection.close();
