// Asks for an answer and waits for it: a request in CBOR.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/nats-io/nats.go"
)

type Tensor struct {
	Name     string `cbor:"name"`
	Datatype string `cbor:"datatype"`
	Shape    []int  `cbor:"shape"`
	Data     []byte `cbor:"data"`
}

func main() {
	connection := must(nats.Connect(os.Getenv("NATS_URL"))) // Empty: nats://127.0.0.1:4222
	defer connection.Close()
	var pixels [64]float32
	must(0, json.Unmarshal([]byte(os.Args[1]), &pixels))
	input := Tensor{"input", "FP32", []int{1, 64}, must(binary.Append(nil, binary.LittleEndian, pixels))}
	body := must(cbor.Marshal(map[string]any{"inputs": []Tensor{input}}))
	reply := must(connection.Request("infer.rpc.digits", body, 5*time.Second))
	if reply.Header.Get("Nats-Service-Error-Code") != "" {
		log.Fatal(reply.Header.Get("Nats-Service-Error"))
	}
	var answer struct{ Outputs []Tensor }
	must(0, cbor.Unmarshal(reply.Data, &answer))
	for _, output := range answer.Outputs {
		if output.Name == "label" {
			fmt.Println(binary.LittleEndian.Uint64(output.Data))
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
