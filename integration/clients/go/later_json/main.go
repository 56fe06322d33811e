// Queues a job under an id of its own and reads the outcome from the stream later: JSON.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

func main() {
	connection := must(nats.Connect(os.Getenv("NATS_URL"))) // Empty: nats://127.0.0.1:4222
	defer connection.Close()
	streams, id := must(connection.JetStream()), nuid.Next()
	job := &nats.Msg{Subject: "infer.jobs.digits.normal", Header: nats.Header{"Infer-Job-Id": {id}}}
	job.Data = fmt.Appendf(nil, `{"instances": [%s]}`, os.Args[1])
	must(streams.PublishMsg(job))
	for { // Any time within a day, from any connection.
		outcome, err := streams.GetLastMsg("INFER_RESULTS", "infer.results."+id, nats.DirectGet())
		if err == nats.ErrMsgNotFound {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		var answer struct{ Predictions []struct{ Label int64 } }
		must(0, json.Unmarshal(must(outcome, err).Data, &answer))
		fmt.Println(outcome.Header.Get("Infer-Status"), answer.Predictions[0].Label)
		return
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
