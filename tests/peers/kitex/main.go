// A provider and a consumer on Kitex, which speak TTHeader.
//
//	kitex-peer TRANSPORT provider <version>          prints "ready <port>", serves until its input ends
//	kitex-peer TRANSPORT consumer <port> <version>   makes one call of each kind, prints "<what>: <result>"
//
// TRANSPORT is ttheader or ttheader_framed.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/gopkg/protocol/thrift"
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/serviceinfo"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/transport"
)

const service = "Greeter"

// A struct of one string, by hand, so that nothing has to be generated: the arguments of every
// method (field 1) and their results (field 0).
type text struct {
	field uint16
	value string
}

const stringType, stop = 11, 0

func (t *text) BLength() int { return 3 + 4 + len(t.value) + 1 }

func (t *text) FastWriteNocopy(buf []byte, _ thrift.NocopyWriter) int {
	buf[0] = stringType
	binary.BigEndian.PutUint16(buf[1:], t.field)
	binary.BigEndian.PutUint32(buf[3:], uint32(len(t.value)))
	copy(buf[7:], t.value)
	buf[7+len(t.value)] = stop
	return t.BLength()
}

func (t *text) FastRead(buf []byte) (int, error) {
	if len(buf) > 0 && buf[0] == stop {
		return 1, nil
	}
	if len(buf) < 8 || buf[0] != stringType {
		return 0, errors.New("not the struct that is spoken here")
	}
	length := int(binary.BigEndian.Uint32(buf[3:]))
	if len(buf) < 8+length {
		return 0, io.ErrUnexpectedEOF
	}
	t.value = string(buf[7 : 7+length])
	return 8 + length, nil
}

type greeter struct {
	version string
	notes   atomic.Int64
}

type method func(g *greeter, ctx context.Context, said string) (string, error)

var methods = map[string]method{
	"greet": func(g *greeter, _ context.Context, said string) (string, error) {
		return g.version + " greets " + said, nil
	},
	"info": func(g *greeter, ctx context.Context, key string) (string, error) {
		value, _ := metainfo.GetValue(ctx, key)
		from := rpcinfo.GetRPCInfo(ctx).From().ServiceName()
		return g.version + " has " + value + " of " + from, nil
	},
	"fail": func(*greeter, context.Context, string) (string, error) {
		return "", errors.New("on purpose")
	},
	"timeout": func(g *greeter, ctx context.Context, _ string) (string, error) {
		return fmt.Sprint(rpcinfo.GetRPCInfo(ctx).Config().RPCTimeout().Round(10 * time.Second)), nil
	},
	"note": func(g *greeter, _ context.Context, _ string) (string, error) {
		g.notes.Add(1)
		return "", nil
	},
	"notes": func(g *greeter, _ context.Context, _ string) (string, error) {
		return fmt.Sprint(g.notes.Load()), nil
	},
}

func info() *serviceinfo.ServiceInfo {
	described := map[string]serviceinfo.MethodInfo{}
	for name, call := range methods {
		call, oneWay := call, name == "note"
		described[name] = serviceinfo.NewMethodInfo(
			func(ctx context.Context, handler, arguments, result interface{}) error {
				said, err := call(handler.(*greeter), ctx, arguments.(*text).value)
				if err == nil && !oneWay {
					result.(*text).value = said
				}
				return err
			},
			func() interface{} { return &text{field: 1} },
			func() interface{} { return &text{field: 0} },
			oneWay,
		)
	}
	return &serviceinfo.ServiceInfo{
		ServiceName:  service,
		HandlerType:  (*interface{})(nil),
		Methods:      described,
		PayloadCodec: serviceinfo.Thrift,
		Extra:        map[string]interface{}{"PackageName": "metaprotocol"},
	}
}

func provide(version string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	running := server.NewServer(
		server.WithListener(listener),
		server.WithMetaHandler(transmeta.ServerTTHeaderHandler),
		server.WithMetaHandler(transmeta.MetainfoServerHandler),
		server.WithExitWaitTime(0),
	)
	if err := running.RegisterService(info(), &greeter{version: version}); err != nil {
		return err
	}
	server.RegisterStartHook(func() { fmt.Println("ready", listener.Addr().(*net.TCPAddr).Port) })
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = running.Stop()
		os.Exit(0)
	}()
	return running.Run()
}

func consume(protocol transport.Protocol, port string) error {
	greeter, err := client.NewClient(info(),
		client.WithDestService(service),
		client.WithHostPorts("127.0.0.1:"+port),
		client.WithTransportProtocol(protocol),
		client.WithMetaHandler(transmeta.ClientTTHeaderHandler),
		client.WithMetaHandler(transmeta.MetainfoClientHandler),
		client.WithClientBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: "shop"}),
		client.WithRPCTimeout(30*time.Second),
	)
	if err != nil {
		return err
	}
	call := func(ctx context.Context, method, said string) string {
		result := &text{}
		if err := greeter.Call(ctx, method, &text{1, said}, result); err != nil {
			return "error " + strings.Split(err.Error(), "\n")[0]
		}
		return result.value
	}
	ctx := context.Background()
	lane := metainfo.WithValue(ctx, "LANE", "theirs")
	fmt.Println("greet:", call(ctx, "greet", "Jürgen 😀"))
	fmt.Println("large:", len(call(ctx, "greet", strings.Repeat("x", 1<<20))))
	fmt.Println("info:", call(lane, "info", "LANE"))
	fmt.Println("timeout:", call(ctx, "timeout", ""))
	fmt.Println("fail:", call(ctx, "fail", ""))
	var waiting sync.WaitGroup
	var wrong atomic.Int64
	for i := 0; i < 200; i++ {
		waiting.Add(1)
		go func(i int) {
			defer waiting.Done()
			said := fmt.Sprint(i)
			if !strings.HasSuffix(call(ctx, "greet", said), " greets "+said) {
				wrong.Add(1)
			}
		}(i)
	}
	waiting.Wait()
	fmt.Println("wrong:", wrong.Load())
	for i := 0; i < 3; i++ {
		if err := greeter.Call(ctx, "note", &text{1, "x"}, nil); err != nil {
			fmt.Println("note:", err)
		}
	}
	notes := ""
	for i := 0; i < 500 && notes != "3"; i++ {
		time.Sleep(20 * time.Millisecond)
		notes = call(ctx, "notes", "")
	}
	fmt.Println("notes:", notes)
	return nil
}

func main() {
	klog.SetLevel(klog.LevelError)
	protocols := map[string]transport.Protocol{
		"ttheader": transport.TTHeader, "ttheader_framed": transport.TTHeaderFramed,
	}
	err := errors.New("usage: kitex-peer TRANSPORT provider VERSION | TRANSPORT consumer PORT VERSION")
	switch arguments := os.Args[1:]; {
	case len(arguments) == 3 && arguments[1] == "provider":
		err = provide(arguments[2])
	case len(arguments) == 4 && arguments[1] == "consumer":
		err = consume(protocols[arguments[0]], arguments[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
