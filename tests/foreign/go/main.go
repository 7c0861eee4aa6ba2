// The producer in Go: sends the records of a plan with franz-go, and prints the position of each.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

// order is one record of the plan.
type order struct {
	Number      int            `json:"number"`
	Topic       string         `json:"topic"`
	Partition   int32          `json:"partition"`
	Form        string         `json:"form"`
	Content     string         `json:"content"`
	Key         *string        `json:"key"`
	Codec       string         `json:"codec"`
	SchemaID    int            `json:"schema_id"`
	Base64      bool           `json:"base64"`
	ContentType *string        `json:"content_type"`
	Attributes  map[string]any `json:"attributes"`
	Data        any            `json:"data"`
}

type position struct {
	Number    int    `json:"number"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

const eventJSON = "application/cloudevents+json; charset=UTF-8"
const batchJSON = "application/cloudevents-batch+json; charset=UTF-8"

func must[T any](found T, err error) T {
	if err != nil {
		panic(err)
	}
	return found
}

// cloudEvent makes the event of a record with the SDK.
func cloudEvent(each order) event.Event {
	made := event.New("1.0")
	for name, value := range each.Attributes {
		if value == nil {
			continue
		}
		switch text := fmt.Sprint(value); name {
		case "id":
			made.SetID(text)
		case "source":
			made.SetSource(text)
		case "type":
			made.SetType(text)
		case "subject":
			made.SetSubject(text)
		case "time":
			made.SetTime(must(time.Parse(time.RFC3339Nano, text)))
		default:
			if number, isNumber := value.(float64); isNumber {
				value = int32(number)
			}
			made.SetExtension(name, value)
		}
	}
	if each.Content == "none" {
		return made
	}
	var data any = each.Data
	if each.Base64 { // what the SDK does with bytes
		data = must(json.Marshal(each.Data))
	}
	if each.ContentType == nil {
		made.DataEncoded = must(json.Marshal(each.Data))
	} else if err := made.SetData(*each.ContentType, data); err != nil {
		panic(err)
	}
	return made
}

// binary returns headers and value of an event in binary mode.
func binary(made event.Event) ([]kgo.RecordHeader, []byte) {
	var headers []kgo.RecordHeader
	for _, attribute := range spec.WithPrefix("ce_").Version("1.0").Attributes() {
		value := attribute.Get(made.Context)
		if value == nil {
			continue
		}
		name := attribute.PrefixedName()
		if attribute.Kind() == spec.DataContentType {
			name = "content-type"
		}
		headers = append(headers, kgo.RecordHeader{Key: name, Value: []byte(must(types.Format(value)))})
	}
	for name, value := range made.Extensions() {
		headers = append(headers, kgo.RecordHeader{Key: "ce_" + name, Value: []byte(must(types.Format(value)))})
	}
	return headers, made.Data()
}

func framed(id int, document any) []byte {
	return must(sr.Encode(document, new(sr.ConfluentHeader), id, nil, json.Marshal))
}

// encoded returns headers and value of a record, before anything is cut off.
func encoded(each order) ([]kgo.RecordHeader, []byte) {
	structured := []kgo.RecordHeader{{Key: "content-type", Value: []byte(eventJSON)}}
	if each.Content == "batch" {
		batch := []event.Event{cloudEvent(each), cloudEvent(each)}
		headers := []kgo.RecordHeader{{Key: "content-type", Value: []byte(batchJSON)}}
		return headers, must(json.Marshal(batch))
	}
	switch each.Form {
	case "plain":
		return nil, must(json.Marshal(each.Data))
	case "binary":
		return binary(cloudEvent(each))
	case "structured":
		return structured, must(json.Marshal(cloudEvent(each)))
	case "framed":
		return nil, framed(each.SchemaID, each.Data)
	case "named": // the schema's id in a header, as a magic byte and a GUID
		id := append([]byte{1}, []byte("0123456789abcdef")...)
		return []kgo.RecordHeader{{Key: "__value_schema_id", Value: id}}, must(json.Marshal(each.Data))
	}
	panic(each.Form)
}

func record(each order) *kgo.Record {
	made := &kgo.Record{Topic: each.Topic, Partition: each.Partition}
	if each.Key != nil {
		made.Key = []byte(*each.Key)
	}
	if each.Content == "null" {
		return made
	}
	made.Headers, made.Value = encoded(each)
	switch each.Content {
	case "empty":
		made.Value = []byte{}
	case "cut":
		made.Value = made.Value[:len(made.Value)/2]
	case "head":
		made.Value = made.Value[:5]
	}
	return made
}

func main() {
	ctx := context.Background()
	clients := map[string]*kgo.Client{}
	for name, codec := range codecs {
		clients[name] = must(kgo.NewClient(
			kgo.SeedBrokers(strings.Split(os.Args[1], ",")...),
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerBatchCompression(codec),
			kgo.ProducerLinger(20*time.Millisecond),
		))
	}
	var lock sync.Mutex
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var each order
		if err := json.Unmarshal(lines.Bytes(), &each); err != nil {
			panic(err)
		}
		clients[each.Codec].Produce(ctx, record(each), func(done *kgo.Record, err error) {
			if err != nil {
				panic(err)
			}
			lock.Lock()
			defer lock.Unlock()
			if err := out.Encode(position{each.Number, done.Topic, done.Partition, done.Offset}); err != nil {
				panic(err)
			}
		})
	}
	for _, client := range clients {
		if err := client.Flush(ctx); err != nil {
			panic(err)
		}
		client.Close()
	}
}
