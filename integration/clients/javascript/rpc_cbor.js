// Asks for an answer and waits for it: a request in CBOR.
import { connect } from "@nats-io/transport-node";
import { decode, encode } from "cbor-x";

const connection = await connect({ servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222" });
// A Buffer travels as plain bytes; cbor-x would put a tag before a typed array.
const data = Buffer.from(Float32Array.from(JSON.parse(process.argv[2])).buffer);
const body = encode({ inputs: [{ name: "input", datatype: "FP32", shape: [1, 64], data }] });
const reply = await connection.request("infer.rpc.digits", body, { timeout: 5000 });
const answer = decode(reply.data);
if (reply.headers.has("Nats-Service-Error-Code")) throw new Error(answer.error);
const label = answer.outputs.find((output) => output.name === "label");
console.log(Number(label.data.readBigInt64LE()));
await connection.close();
