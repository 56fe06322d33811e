// Asks for an answer and waits for it: a request in JSON.
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
	body := fmt.Appendf(nil, `{"instances": [%s]}`, os.Args[1])
	reply := must(connection.Request("infer.rpc.digits", body, 5*time.Second))
	if reply.Header.Get("Nats-Service-Error-Code") != "" {
		log.Fatal(reply.Header.Get("Nats-Service-Error"))
	}
	var answer struct{ Predictions []struct{ Label int64 } }
	must(0, json.Unmarshal(reply.Data, &answer))
	fmt.Println(answer.Predictions[0].Label)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
