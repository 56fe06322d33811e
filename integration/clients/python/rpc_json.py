"""Asks for an answer and waits for it: a request in JSON."""
import asyncio, json, os, sys
import nats

async def main():
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    body = json.dumps({"instances": [json.loads(sys.argv[1])]}).encode()
    reply = await connection.request("infer.rpc.digits", body, timeout=5)
    answer = json.loads(reply.data)
    if "Nats-Service-Error-Code" in reply.headers:
        sys.exit(answer["error"])
    print(answer["predictions"][0]["label"])
    await connection.close()

asyncio.run(main())
