"""Asks for an answer and waits for it: a request in CBOR."""
import asyncio, json, os, struct, sys
import cbor2, nats

async def main():
    connection = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
    data = struct.pack("<64f", *json.loads(sys.argv[1]))
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 64], "data": data}
    reply = await connection.request("infer.rpc.digits", cbor2.dumps({"inputs": [tensor]}), timeout=5)
    answer = cbor2.loads(reply.data)
    if "Nats-Service-Error-Code" in reply.headers:
        sys.exit(answer["error"])
    outputs = {output["name"]: output for output in answer["outputs"]}
    print(struct.unpack("<q", outputs["label"]["data"])[0])
    await connection.close()

asyncio.run(main())
