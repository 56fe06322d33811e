"""Queues a job under an id of its own and reads the outcome from the stream later: CBOR."""
import asyncio, json, os, struct, sys, uuid
import cbor2, nats

async def main():
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    stream, job, data = connection.jetstream(), uuid.uuid4().hex, struct.pack("<64f", *json.loads(sys.argv[1]))
    body = cbor2.dumps({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 64], "data": data}]})
    await stream.publish("infer.jobs.digits.normal", body, headers={"Infer-Job-Id": job})
    while True:  # Any time within a day, from any connection.
        try:
            outcome = await stream.get_last_msg("INFER_RESULTS", f"infer.results.{job}", direct=True)
            break
        except nats.js.errors.NotFoundError:
            await asyncio.sleep(0.1)
    outputs = {output["name"]: output for output in cbor2.loads(outcome.data)["outputs"]}
    print(outcome.headers["Infer-Status"], struct.unpack("<q", outputs["label"]["data"])[0])

asyncio.run(main())
