"""Queues a job and hears of its outcome at a reply address: JSON."""
import asyncio, json, os, sys
import nats

async def main():
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    inbox = connection.new_inbox()
    outcomes = await connection.subscribe(inbox)
    body = json.dumps({"instances": [json.loads(sys.argv[1])]}).encode()
    await connection.jetstream().publish("infer.jobs.digits.normal", body, headers={"Infer-Reply-To": inbox})
    outcome = await outcomes.next_msg(timeout=60)
    answer = json.loads(outcome.data)
    if outcome.headers["Infer-Status"] != "ok":
        sys.exit(answer["error"])
    print(answer["predictions"][0]["label"])
    await connection.close()

asyncio.run(main())
