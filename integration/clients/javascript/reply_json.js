// Queues a job and hears of its outcome at a reply address: JSON.
import { connect, createInbox, headers } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";

const connection = await connect({ servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222" });
const inbox = createInbox();
const outcomes = connection.subscribe(inbox, { max: 1 });
const job = headers();
job.set("Infer-Reply-To", inbox);
const body = JSON.stringify({ instances: [JSON.parse(process.argv[2])] });
await jetstream(connection).publish("infer.jobs.digits.normal", body, { headers: job });
for await (const outcome of outcomes) {
  const answer = outcome.json();
  if (outcome.headers.get("Infer-Status") !== "ok") throw new Error(answer.error);
  console.log(answer.predictions[0].label);
}
await connection.close();
