"""Queues a job and hears of its outcome at a reply address: CBOR."""
import asyncio, json, os, struct, sys
import cbor2, nats

async def main():
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    outcomes = await connection.subscribe(inbox := connection.new_inbox())
    data = struct.pack("<64f", *json.loads(sys.argv[1]))
    body = cbor2.dumps({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 64], "data": data}]})
    await connection.jetstream().publish("infer.jobs.digits.normal", body, headers={"Infer-Reply-To": inbox})
    outcome = await outcomes.next_msg(timeout=60)
    answer = cbor2.loads(outcome.data)
    if outcome.headers["Infer-Status"] != "ok":
        sys.exit(answer["error"])
    outputs = {output["name"]: output for output in answer["outputs"]}
    print(struct.unpack("<q", outputs["label"]["data"])[0])
    await connection.close()

asyncio.run(main())
