// A provider and a consumer on trpc-go.
//
//	trpc-peer provider <version>          prints "ready <port>", serves until its input ends
//	trpc-peer consumer <port> <version>   makes one call of each kind, prints "<what>: <result>"
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"trpc.group/trpc-go/trpc-go"
	"trpc.group/trpc-go/trpc-go/client"
	"trpc.group/trpc-go/trpc-go/codec"
	"trpc.group/trpc-go/trpc-go/errs"
	"trpc.group/trpc-go/trpc-go/log"
	"trpc.group/trpc-go/trpc-go/server"
	"trpc.group/trpc-go/trpc-go/stream"
	"trpc.group/trpc-go/trpc-go/transport"
	"trpc.group/trpc-go/trpc-go/transport/tnet"
	"trpc.group/trpc-go/trpc-go/transport/tnet/multiplex"
)

const service = "trpc.example.greeter.Greeter"

// Bodies are plain bytes, so that no protobuf has to be generated.
type greeter struct{ version string }

type method func(g *greeter, ctx context.Context, text string) (string, error)

func describe(name string, call method) server.Method {
	return server.Method{
		Name: "/" + service + "/" + name,
		Func: func(svr interface{}, ctx context.Context, f server.FilterFunc) (interface{}, error) {
			request := &codec.Body{}
			filters, err := f(request)
			if err != nil {
				return nil, err
			}
			return filters.Filter(ctx, request,
				func(ctx context.Context, _ interface{}) (interface{}, error) {
					text, err := call(svr.(*greeter), ctx, string(request.Data))
					return &codec.Body{Data: []byte(text)}, err
				})
		},
	}
}

func echo(g *greeter, flow server.Stream) error {
	for {
		message := &codec.Body{}
		err := flow.RecvMsg(message)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if string(message.Data) == "fail" {
			return errs.New(10002, "stream failed on purpose")
		}
		answer := append([]byte(g.version+" "), message.Data...)
		if err := flow.SendMsg(&codec.Body{Data: answer}); err != nil {
			return err
		}
	}
}

func description() *server.ServiceDesc {
	return &server.ServiceDesc{
		ServiceName: service,
		HandlerType: (*interface{})(nil),
		Methods: []server.Method{
			describe("Greet", func(g *greeter, _ context.Context, text string) (string, error) {
				return g.version + " greets " + text, nil
			}),
			describe("Info", func(_ *greeter, ctx context.Context, text string) (string, error) {
				trpc.SetMetaData(ctx, "answered", []byte("yes"))
				return string(trpc.GetMetaData(ctx, text)), nil
			}),
			describe("Fail", func(_ *greeter, _ context.Context, text string) (string, error) {
				return "", errs.New(10001, text)
			}),
			describe("Slow", func(_ *greeter, _ context.Context, _ string) (string, error) {
				time.Sleep(time.Second)
				return "slow", nil
			}),
		},
		StreamHandle: stream.NewStreamDispatcher(),
		Streams: []server.StreamDesc{{
			StreamName: "/" + service + "/Echo",
			Handler: func(svr interface{}, flow server.Stream) error {
				return echo(svr.(*greeter), flow)
			},
			ServerStreams: true,
			ClientStreams: true,
		}},
	}
}

func provide(version string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	both := transport.NewServerStreamTransport()
	greeting := server.New(
		server.WithServiceName(service),
		server.WithProtocol("trpc"),
		server.WithNetwork("tcp"),
		server.WithListener(listener),
		server.WithStreamTransport(both),
		server.WithTransport(both),
		server.WithCurrentSerializationType(codec.SerializationTypeNoop),
	)
	if err := greeting.Register(description(), &greeter{version}); err != nil {
		return err
	}
	go func() {
		if err := greeting.Serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	fmt.Println("ready", listener.Addr().(*net.TCPAddr).Port)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func report(what string, text string, err error) {
	if err != nil {
		text = fmt.Sprintf("error %d %s", errs.Code(err), errs.Msg(err))
	}
	fmt.Printf("%s: %s\n", what, text)
}

func consume(port string) {
	options := []client.Option{
		client.WithTarget("ip://127.0.0.1:" + port),
		client.WithProtocol("trpc"),
		client.WithCurrentSerializationType(codec.SerializationTypeNoop),
		client.WithTimeout(30 * time.Second),
		client.WithMultiplexedPool(tnet.NewMuxPool(multiplex.WithDialTimeout(30 * time.Second))), // not 200 ms
	}
	call := func(name string, text string, more ...client.Option) (string, error) {
		ctx, message := codec.WithNewMessage(context.Background())
		message.WithClientRPCName("/" + service + "/" + name)
		message.WithCalleeServiceName(service)
		message.WithCalleeMethod(name)
		reply := &codec.Body{}
		err := client.DefaultClient.Invoke(ctx, &codec.Body{Data: []byte(text)}, reply,
			append(append([]client.Option{}, options...), more...)...)
		return string(reply.Data), err
	}
	text, err := call("Greet", "Jürgen")
	report("greet", text, err)
	text, err = call("Greet", strings.Repeat("x", 100_000))
	report("large", fmt.Sprint(len(text)), err)
	text, err = call("Info", "lane", client.WithMetaData("lane", []byte("theirs")),
		client.WithMetaData("user", []byte("ann")))
	report("info", text, err)
	text, err = call("Fail", "on purpose")
	report("fail", text, err)
	text, err = call("Slow", "")
	report("slow", text, err)
	text, err = call("Missing", "")
	report("missing", text, err)

	var right atomic.Int32
	var callers sync.WaitGroup
	for i := 0; i < 8; i++ {
		callers.Add(1)
		go func(i int) {
			defer callers.Done()
			for j := 0; j < 25; j++ {
				name := fmt.Sprintf("n%d-%d", i, j)
				if text, err := call("Greet", name); err == nil && strings.HasSuffix(text, " "+name) {
					right.Add(1)
				}
			}
		}(i)
	}
	callers.Wait()
	report("many", fmt.Sprint(right.Load()), nil)

	// One client for all streams: each numbers its own from the same start, and a provider that
	// ends a stream would end the next of that number on the same connection with it.
	streams := stream.NewStreamClient()
	open := func() (client.ClientStream, error) {
		ctx, message := codec.WithNewMessage(context.Background())
		message.WithCalleeServiceName(service)
		both := &client.ClientStreamDesc{StreamName: "Echo", ClientStreams: true, ServerStreams: true}
		return streams.NewStream(ctx, both, "/"+service+"/Echo",
			client.WithTarget("ip://127.0.0.1:"+port), client.WithProtocol("trpc"),
			client.WithCurrentSerializationType(codec.SerializationTypeNoop))
	}
	// More than the windows that both sides begin with.
	talk := func(last string) (string, error) {
		flow, err := open()
		if err != nil {
			return "", err
		}
		total := 0
		for i := 0; i < 40; i++ {
			if err := flow.SendMsg(&codec.Body{Data: []byte(strings.Repeat("y", 10_000))}); err != nil {
				return "", err
			}
			answer := &codec.Body{}
			if err := flow.RecvMsg(answer); err != nil {
				return "", err
			}
			total += len(answer.Data)
		}
		if last != "" {
			if err := flow.SendMsg(&codec.Body{Data: []byte(last)}); err != nil {
				return "", err
			}
		} else if err := flow.CloseSend(); err != nil {
			return "", err
		}
		if err := flow.RecvMsg(&codec.Body{}); !errors.Is(err, io.EOF) {
			return "", err
		}
		return fmt.Sprint(total), nil
	}
	text, err = talk("")
	report("stream", text, err)
	text, err = talk("fail")
	report("failed_stream", text, err)
	text, err = call("Greet", "again")
	report("again", text, err)
}

func main() {
	log.SetLevel("0", log.LevelFatal)
	if os.Args[1] == "provider" {
		if err := provide(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	consume(os.Args[2])
}
