"""Queues a job under an id of its own and reads the outcome from the stream later: JSON."""
import asyncio, json, os, sys, uuid
import nats

async def main():
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    stream, job = connection.jetstream(), uuid.uuid4().hex
    body = json.dumps({"instances": [json.loads(sys.argv[1])]}).encode()
    await stream.publish("infer.jobs.digits.normal", body, headers={"Infer-Job-Id": job})
    while True:  # Any time within a day, from any connection.
        try:
            outcome = await stream.get_last_msg("INFER_RESULTS", f"infer.results.{job}", direct=True)
            break
        except nats.js.errors.NotFoundError:
            await asyncio.sleep(0.1)
    print(outcome.headers["Infer-Status"], json.loads(outcome.data)["predictions"][0]["label"])
    await connection.close()

asyncio.run(main())
