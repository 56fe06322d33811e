// Queues a job under an id of its own and reads the outcome from the stream later: CBOR.
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
	"github.com/nats-io/nuid"
)

type Tensor struct {
	Name     string `cbor:"name"`
	Datatype string `cbor:"datatype"`
	Shape    []int  `cbor:"shape"`
	Data     []byte `cbor:"data"`
}

func main() {
	connection := must(nats.Connect(os.Getenv("NATS_URL"))) // Empty: nats://127.0.0.1:4222
	streams, id := must(connection.JetStream()), nuid.Next()
	var pixels [64]float32
	must(0, json.Unmarshal([]byte(os.Args[1]), &pixels))
	input := Tensor{"input", "FP32", []int{1, 64}, must(binary.Append(nil, binary.LittleEndian, pixels))}
	job := &nats.Msg{Subject: "infer.jobs.digits.normal", Header: nats.Header{"Infer-Job-Id": {id}}}
	job.Data = must(cbor.Marshal(map[string]any{"inputs": []Tensor{input}}))
	must(streams.PublishMsg(job))
	outcome, err := streams.GetLastMsg("INFER_RESULTS", "infer.results."+id, nats.DirectGet())
	for ; err == nats.ErrMsgNotFound; time.Sleep(100 * time.Millisecond) {
		outcome, err = streams.GetLastMsg("INFER_RESULTS", "infer.results."+id, nats.DirectGet())
	}
	var answer struct{ Outputs []Tensor }
	must(0, cbor.Unmarshal(must(outcome, err).Data, &answer))
	for _, output := range answer.Outputs {
		if output.Name == "label" {
			fmt.Println(outcome.Header.Get("Infer-Status"), binary.LittleEndian.Uint64(output.Data))
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
