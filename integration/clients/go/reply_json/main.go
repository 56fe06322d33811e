// Queues a job and hears of its outcome at a reply address: JSON.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

func main() {
	connection := must(nats.Connect(os.Getenv("NATS_URL"))) // Empty: nats://127.0.0.1:4222
	defer connection.Close()
	inbox := connection.NewInbox()
	outcomes := must(connection.SubscribeSync(inbox))
	job := &nats.Msg{Subject: "infer.jobs.digits.normal", Header: nats.Header{"Infer-Reply-To": {inbox}}}
	job.Data = fmt.Appendf(nil, `{"instances": [%s]}`, os.Args[1])
	must(must(connection.JetStream()).PublishMsg(job))
	outcome := must(outcomes.NextMsg(time.Minute))
	if outcome.Header.Get("Infer-Status") != "ok" {
		log.Fatal(outcome.Header.Get("Nats-Service-Error"))
	}
	var answer struct{ Predictions []struct{ Label int64 } }
	must(0, json.Unmarshal(outcome.Data, &answer))
	fmt.Println(answer.Predictions[0].Label)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
