// Command tag prints the tags of images: file, score, English name, Chinese name, with tabs between them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"ramclient"
)

var (
	flags   = flag.NewFlagSet("tag", flag.ContinueOnError)
	server  = flags.String("server", "localhost:8001", "host:port")
	timeout = flags.Float64("timeout", 60, "seconds that a request may take, retries included")
	tls     = flags.Bool("tls", false, "TLS with a certificate that the system trusts")
	ca      = flags.String("tls-ca", "", "TLS with these certificates to trust, PEM")
	batch   = flags.Int("batch", 32, "images per request")
	headers []string // name, value, name, …
	options ramclient.Options
)

func readCommandLine() error {
	flags.SetOutput(io.Discard)
	flags.Func("threshold", "0 to 1", func(text string) error {
		number, err := strconv.ParseFloat(text, 32)
		threshold := float32(number)
		options.Threshold = &threshold
		return err
	})
	flags.Func("top-k", "maximum number of tags", func(text string) error {
		number, err := strconv.ParseInt(text, 10, 32)
		topK := int32(number)
		options.TopK = &topK
		return err
	})
	flags.Func("header", "NAME:VALUE, sent with every request", func(text string) error {
		parts := strings.SplitN(text, ":", 2)
		if len(parts) < 2 || parts[0] == "" {
			return errors.New("is not NAME:VALUE")
		}
		headers = append(headers, parts[0], strings.TrimSpace(parts[1]))
		return nil
	})
	for name, list := range map[string]*[]string{"exclude": &options.Exclude, "label": &options.Labels} {
		list := list
		flags.Func(name, "a tag, once per tag", func(text string) error {
			*list = append(*list, text)
			return nil
		})
	}
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no image is given")
	}
	if *batch < 1 {
		return errors.New("--batch: must be 1 or more")
	}
	return nil
}

// tagFiles tags some files in one request, and prints what comes back.
func tagFiles(client *ramclient.Client, files []string) error {
	images := make([][]byte, len(files))
	for i, file := range files {
		image, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		images[i] = image
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(*timeout*float64(time.Second)))
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, headers...)
	answers, err := client.Tag(ctx, images, options)
	if failure, ok := status.FromError(err); err != nil && ok {
		return fmt.Errorf("%s: %s", failure.Code(), strings.ReplaceAll(failure.Message(), "\n", " "))
	}
	for row, tags := range answers {
		for _, tag := range tags {
			fmt.Printf("%s\t%.6f\t%s\t%s\n", files[row], tag.Score, tag.Name, tag.NameZh)
		}
	}
	return err
}

func run() (exitStatus int, err error) {
	if err = readCommandLine(); err != nil {
		return 2, err
	}
	security := grpc.WithInsecure()
	if *tls {
		security = grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(nil, ""))
	}
	if *ca != "" {
		trusted, err := credentials.NewClientTLSFromFile(*ca, "")
		if err != nil {
			return 2, err
		}
		security = grpc.WithTransportCredentials(trusted)
	}
	client, err := ramclient.New(*server, security)
	if err != nil {
		return 2, err
	}
	defer client.Close()
	for files := flags.Args(); len(files) > 0; {
		some := files
		if len(some) > *batch {
			some = files[:*batch]
		}
		files = files[len(some):]
		if err := tagFiles(client, some); err != nil {
			fmt.Fprintln(os.Stderr, "tag:", err)
			exitStatus = 1
		}
	}
	return exitStatus, nil
}

func main() {
	exitStatus, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tag:", err)
	}
	os.Exit(exitStatus)
}
