// A provider and a consumer on brpc-java, speaking baidu_std.
//
//   BrpcPeer provider <version>          prints "ready <port>", serves until its input ends
//   BrpcPeer consumer <port> <version>   makes one call of each kind, prints "<what>: <result>"
package org.metaprotocol.peer;

import com.baidu.brpc.RpcContext;
import com.baidu.brpc.client.BrpcProxy;
import com.baidu.brpc.client.RpcClient;
import com.baidu.brpc.client.RpcClientOptions;
import com.baidu.brpc.protocol.BrpcMeta;
import com.baidu.brpc.protocol.Options;
import com.baidu.brpc.server.RpcServer;
import com.baidu.brpc.server.RpcServerOptions;
import com.google.protobuf.DescriptorProtos.EnumDescriptorProto;
import io.netty.buffer.Unpooled;
import java.io.IOException;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public final class BrpcPeer {
  /** Requests and replies are a protobuf message with one string that is at hand. */
  public interface Greeter {
    @BrpcMeta(serviceName = "example.Greeter", methodName = "Greet")
    EnumDescriptorProto greet(EnumDescriptorProto request);

    @BrpcMeta(serviceName = "example.Greeter", methodName = "Attachment")
    EnumDescriptorProto attachment(EnumDescriptorProto request);

    @BrpcMeta(serviceName = "example.Greeter", methodName = "Field")
    EnumDescriptorProto field(EnumDescriptorProto request);

    @BrpcMeta(serviceName = "example.Greeter", methodName = "Fail")
    EnumDescriptorProto fail(EnumDescriptorProto request);

    @BrpcMeta(serviceName = "example.Greeter", methodName = "Slow")
    EnumDescriptorProto slow(EnumDescriptorProto request);
  }

  private static EnumDescriptorProto text(String text) {
    return EnumDescriptorProto.newBuilder().setName(text).build();
  }

  public static final class Implementation implements Greeter {
    private final String version;

    Implementation(String version) {
      this.version = version;
    }

    public EnumDescriptorProto greet(EnumDescriptorProto request) {
      return text(version + " greets " + request.getName());
    }

    /** Answers the binary attachment with another one. */
    public EnumDescriptorProto attachment(EnumDescriptorProto request) {
      RpcContext context = RpcContext.getContext();
      byte[] bytes = new byte[context.getRequestBinaryAttachment().readableBytes()];
      context.getRequestBinaryAttachment().readBytes(bytes);
      String sent = new String(bytes, StandardCharsets.UTF_8);
      context.setResponseBinaryAttachment(Unpooled.copiedBuffer(sent + " back", StandardCharsets.UTF_8));
      return text("attached");
    }

    /** One of the key/value attachments. */
    public EnumDescriptorProto field(EnumDescriptorProto request) {
      Object value = RpcContext.getContext().getRequestKvAttachment().get(request.getName());
      return text(String.valueOf(value));
    }

    public EnumDescriptorProto fail(EnumDescriptorProto request) {
      throw new IllegalStateException(request.getName());
    }

    public EnumDescriptorProto slow(EnumDescriptorProto request) {
      try {
        Thread.sleep(1000);
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
      return text("slow");
    }
  }

  private static void print(String what, Callable<String> call) {
    String result;
    try {
      result = call.call();
    } catch (Exception e) {
      result = e.getClass().getSimpleName() + " " + e.getMessage();
    }
    System.out.println(what + ": " + result);
  }

  private static void provide(String version) throws IOException {
    int port;
    try (ServerSocket socket = new ServerSocket(0)) {
      port = socket.getLocalPort();
    }
    RpcServerOptions options = new RpcServerOptions();
    options.setProtocolType(Options.ProtocolType.PROTOCOL_BAIDU_STD_VALUE);
    RpcServer server = new RpcServer("127.0.0.1", port, options);
    server.registerService(new Implementation(version));
    server.start();
    System.out.println("ready " + port);
    while (System.in.read() >= 0) {}
    server.shutdown();
    System.exit(0);
  }

  private static void consume(int port) throws Exception {
    RpcClientOptions options = new RpcClientOptions();
    options.setProtocolType(Options.ProtocolType.PROTOCOL_BAIDU_STD_VALUE);
    options.setConnectTimeoutMillis(30_000);
    options.setWriteTimeoutMillis(30_000);
    options.setReadTimeoutMillis(30_000);
    options.setMaxTryTimes(1);
    RpcClient client = new RpcClient("list://127.0.0.1:" + port, options);
    Greeter greeter = BrpcProxy.getProxy(client, Greeter.class);
    print("greet", () -> greeter.greet(text("Jürgen")).getName());
    String large = "x".repeat(100_000);
    print("large", () -> "" + greeter.greet(text(large)).getName().length());
    print("attachment", () -> {
      RpcContext context = RpcContext.getContext();
      context.reset();
      context.setRequestBinaryAttachment("there and".getBytes(StandardCharsets.UTF_8));
      String text = greeter.attachment(text("")).getName();
      byte[] bytes = new byte[context.getResponseBinaryAttachment().readableBytes()];
      context.getResponseBinaryAttachment().readBytes(bytes);
      return text + " " + new String(bytes, StandardCharsets.UTF_8);
    });
    print("field", () -> {
      RpcContext context = RpcContext.getContext();
      context.reset();
      context.setRequestKvAttachment("lane", "theirs");
      context.setRequestKvAttachment("user", "ann");
      return greeter.field(text("lane")).getName();
    });
    RpcContext.getContext().reset();
    print("fail", () -> greeter.fail(text("on purpose")).getName());
    print("slow", () -> greeter.slow(text("")).getName());
    print("again", () -> greeter.greet(text("again")).getName());
    ExecutorService pool = Executors.newFixedThreadPool(8);
    List<Future<Boolean>> many = new ArrayList<>();
    for (int i = 0; i < 200; i++) {
      String name = "n" + i;
      many.add(pool.submit(() -> greeter.greet(text(name)).getName().endsWith(" " + name)));
    }
    print("many", () -> {
      boolean all = true;
      for (Future<Boolean> one : many) {
        all &= one.get();
      }
      return "" + all;
    });
    System.exit(0);
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments[0].equals("provider")) {
      provide(arguments[1]);
    } else {
      consume(Integer.parseInt(arguments[1]));
    }
  }
}
