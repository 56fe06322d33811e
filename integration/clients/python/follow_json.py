"""Queues a job and hears how it gets on, and how it ends: JSON."""
import asyncio, json, os, sys, uuid
import nats

async def main():
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    job = uuid.uuid4().hex
    heard = await connection.subscribe(f"infer.*.{job}")  # infer.events and infer.results, in order.
    body = json.dumps({"instances": [json.loads(sys.argv[1])]}).encode()
    headers = {"Infer-Job-Id": job, "Infer-Events": "1", "Infer-Cache": "off"}
    await connection.jetstream().publish("infer.jobs.digits.normal", body, headers=headers)
    async for message in heard.messages:
        if message.subject.startswith("infer.results."):
            break
        print(json.loads(message.data)["event"])
    print(message.headers["Infer-Status"], json.loads(message.data)["predictions"][0]["label"])
    await connection.close()

asyncio.run(main())
