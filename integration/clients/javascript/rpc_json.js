// Asks for an answer and waits for it: a request in JSON.
import { connect } from "@nats-io/transport-node";

const connection = await connect({ servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222" });
const body = JSON.stringify({ instances: [JSON.parse(process.argv[2])] });
const reply = await connection.request("infer.rpc.digits", body, { timeout: 5000 });
const answer = reply.json();
if (reply.headers.has("Nats-Service-Error-Code")) throw new Error(answer.error);
console.log(answer.predictions[0].label);
await connection.close();
