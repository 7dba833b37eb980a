// Package ramclient tags images through Triton's gRPC service.
package ramclient

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"ramclient/inference"
)

//go:generate protoc --proto_path=../proto --go_out=. --go-grpc_out=. inference.proto

// Tag is a thing in an image.
type Tag struct {
	Name, NameZh string
	Score        float32 // 0 to 1
	ID           int32   // line in the served tag lists, from 0; with Labels the position in them
	Known        bool    // whether the served tag lists have it; only Labels can bring others
}

// Options are what a request may set.
type Options struct {
	Threshold *float32 // 0 to 1; nil for each tag's own
	TopK      *int32   // maximum number of tags; nil and 0 mean no limit
	Exclude   []string // names to leave out, English or Chinese; not with Labels
	Labels    []string // the tags to look for, instead of all that the server knows
}

// UNAVAILABLE (a full queue, no connection) is tried again, five times at most; throttling stops
// that for all calls of the connection while more than one in ten fails.
const serviceConfig = `{
  "methodConfig": [{
    "name": [{"service": "inference.GRPCInferenceService", "method": "ModelInfer"}],
    "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"]}
  }],
  "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}
}`

// Client is one connection, to be shared between goroutines.
type Client struct {
	connection *grpc.ClientConn
	service    inference.GRPCInferenceServiceClient
}

// New makes a client of host:port; security is grpc.WithInsecure() or grpc.WithTransportCredentials(…).
func New(address string, security grpc.DialOption) (*Client, error) {
	reconnect := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}
	connection, err := grpc.Dial(address, security,
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(math.MaxInt32),
			// A request that does not fit into this is not tried again: the default is 256 KiB.
			grpc.MaxRetryRPCBufferSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	return &Client{connection, inference.NewGRPCInferenceServiceClient(connection)}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.connection.Close() }

// Tag returns the tags of each of up to 32 encoded images (JPEG, PNG, …), highest score first, from
// one request. The context's deadline covers all attempts.
func (c *Client) Tag(ctx context.Context, images [][]byte, options Options) ([][]Tag, error) {
	rows := len(images)
	request := &inference.ModelInferRequest{ModelName: "ram"}
	add := func(name, datatype string, contents *inference.InferTensorContents, shape ...int) {
		input := &inference.ModelInferRequest_InferInputTensor{Name: name, Datatype: datatype, Contents: contents}
		for _, size := range shape {
			input.Shape = append(input.Shape, int64(size))
		}
		request.Inputs = append(request.Inputs, input)
	}
	var threshold, topK, exclude, labels inference.InferTensorContents
	for range images {
		if options.Threshold != nil {
			threshold.Fp32Contents = append(threshold.Fp32Contents, *options.Threshold)
		}
		if options.TopK != nil {
			topK.IntContents = append(topK.IntContents, *options.TopK)
		}
		for _, name := range options.Exclude {
			exclude.BytesContents = append(exclude.BytesContents, []byte(name))
		}
	}
	add("image", "BYTES", &inference.InferTensorContents{BytesContents: images}, rows, 1)
	if options.Threshold != nil {
		add("threshold", "FP32", &threshold, rows, 1)
	}
	if options.TopK != nil {
		add("top_k", "INT32", &topK, rows, 1)
	}
	if len(options.Exclude) > 0 {
		add("exclude", "BYTES", &exclude, rows, len(options.Exclude))
	}
	wanted := []string{"tags", "tags_zh", "scores", "tag_ids", "count"}
	if len(options.Labels) > 0 {
		for _, name := range options.Labels {
			labels.BytesContents = append(labels.BytesContents, []byte(name))
		}
		add("labels", "BYTES", &labels, len(options.Labels))
		request.ModelName = "ram_open"
		wanted = append(wanted, "known")
	}
	for _, name := range wanted {
		output := &inference.ModelInferRequest_InferRequestedOutputTensor{Name: name}
		request.Outputs = append(request.Outputs, output)
	}
	response, err := c.service.ModelInfer(ctx, request)
	if err != nil {
		return nil, err
	}
	return readTags(response, rows), nil
}

// readStrings returns the elements of a BYTES tensor: a length of 4 bytes, little-endian, before each.
func readStrings(buffer []byte) (texts []string) {
	for len(buffer) > 0 {
		end := 4 + binary.LittleEndian.Uint32(buffer)
		texts = append(texts, string(buffer[4:end]))
		buffer = buffer[end:]
	}
	return texts
}

// readTags reads rows that are padded to the longest: count of each are tags. Outputs come in an
// order of the server's.
func readTags(response *inference.ModelInferResponse, rows int) [][]Tag {
	raw, width := map[string][]byte{}, 0
	for i, output := range response.Outputs {
		raw[output.Name] = response.RawOutputContents[i]
		if output.Name == "tags" {
			width = int(output.Shape[1])
		}
	}
	number := func(output string, index int) uint32 { return binary.LittleEndian.Uint32(raw[output][4*index:]) }
	names, namesZh := readStrings(raw["tags"]), readStrings(raw["tags_zh"])
	answers := make([][]Tag, rows)
	for row := range answers {
		for at := row * width; at < row*width+int(number("count", row)); at++ {
			answers[row] = append(answers[row], Tag{
				Name: names[at], NameZh: namesZh[at],
				Score: math.Float32frombits(number("scores", at)), ID: int32(number("tag_ids", at)),
				Known: raw["known"] == nil || raw["known"][at] == 1,
			})
		}
	}
	return answers
}
