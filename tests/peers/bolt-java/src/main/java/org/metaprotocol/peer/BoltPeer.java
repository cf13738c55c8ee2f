// A provider and a consumer on SOFA Bolt for Java, which speak version 2.
//
//   BoltPeer provider <name>          prints "ready <port>", serves until its input ends
//   BoltPeer consumer <port> <name>   makes calls of each kind, prints "<what>: <result>"
package org.metaprotocol.peer;

import com.alipay.remoting.BizContext;
import com.alipay.remoting.CustomSerializerManager;
import com.alipay.remoting.DefaultCustomSerializer;
import com.alipay.remoting.InvokeContext;
import com.alipay.remoting.rpc.RequestCommand;
import com.alipay.remoting.rpc.RpcClient;
import com.alipay.remoting.rpc.RpcServer;
import com.alipay.remoting.rpc.protocol.RpcRequestCommand;
import com.alipay.remoting.rpc.protocol.SyncUserProcessor;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.Serializable;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

public final class BoltPeer {
  /** What is called, and its argument. */
  public static final class Call implements Serializable {
    private static final long serialVersionUID = 1;
    final String service;
    final String text;

    Call(String service, String text) {
      this.service = service;
      this.text = text;
    }
  }

  /** Writes the service into the header, in the form that SOFA RPC gives it. */
  private static final class ServiceInHeader extends DefaultCustomSerializer {
    @Override
    public <T extends RequestCommand> boolean serializeHeader(T request, InvokeContext context) {
      Call call = (Call) ((RpcRequestCommand) request).getRequestObject();
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      try (DataOutputStream out = new DataOutputStream(bytes)) {
        for (String text : new String[] {"sofa_head_target_service", call.service}) {
          out.writeInt(text.length());
          out.write(text.getBytes(StandardCharsets.US_ASCII));
        }
      } catch (IOException e) {
        throw new IllegalStateException(e);
      }
      request.setHeader(bytes.toByteArray());
      return true;
    }
  }

  private static final class Processor extends SyncUserProcessor<Call> {
    private final String name;
    private final AtomicInteger told = new AtomicInteger();

    Processor(String name) {
      this.name = name;
    }

    @Override
    public Object handleRequest(BizContext context, Call call) throws Exception {
      if (call.text.equals("fail")) throw new IllegalStateException("refused by the service");
      if (call.text.equals("sleep")) Thread.sleep(2000);
      if (call.text.equals("tell")) told.incrementAndGet();
      if (call.text.equals("forget")) told.set(0);
      if (call.text.equals("told")) return name + " was told " + told.get();
      return name + " got " + call.text + " for " + call.service;
    }

    @Override
    public String interest() {
      return Call.class.getName();
    }
  }

  private static void provide(String name) throws Exception {
    int port;
    try (ServerSocket socket = new ServerSocket(0)) {
      port = socket.getLocalPort();
    }
    RpcServer server = new RpcServer("127.0.0.1", port);
    server.registerUserProcessor(new Processor(name));
    server.startup();
    System.out.println("ready " + port);
    while (System.in.read() >= 0) {}
    System.exit(0);
  }

  private static void print(String what, Callable<Object> call) {
    String result;
    try {
      result = String.valueOf(call.call());
    } catch (Exception e) {
      result = e.getClass().getSimpleName() + " " + e.getMessage();
    }
    System.out.println(what + ": " + result);
  }

  private static void consume(int port) throws Exception {
    CustomSerializerManager.registerCustomSerializer(Call.class.getName(), new ServiceInHeader());
    RpcClient client = new RpcClient();
    client.startup();
    String to = "127.0.0.1:" + port + "?_PROTOCOL=2&_VERSION=2&_CONNECTTIMEOUT=30000";
    print("orders", () -> client.invokeSync(to, new Call("Orders", "one"), 30_000));
    print("stock", () -> client.invokeSync(to, new Call("Stock", "two"), 30_000));
    InvokeContext unchecked = new InvokeContext();
    unchecked.put(InvokeContext.BOLT_CRC_SWITCH, false);
    print("unchecked", () -> client.invokeSync(to, new Call("Orders", "plain"), unchecked, 30_000));
    String large = "x".repeat(300000);
    print(
        "large",
        () -> ((String) client.invokeSync(to, new Call("Orders", large), 30_000)).length());
    print("fail", () -> client.invokeSync(to, new Call("Orders", "fail"), 30_000));
    print("retired", () -> client.invokeSync(to, new Call("Retired", "x"), 30_000));
    print("slow", () -> client.invokeSync(to, new Call("Slow", "sleep"), 30_000));
    print(
        "tell",
        () -> {
          client.invokeSync(to, new Call("Orders", "forget"), 30_000);
          for (int i = 0; i < 3; ++i) client.oneway(to, new Call("Orders", "tell"));
          Object told = null;
          for (int i = 0; i < 100; ++i) {
            told = client.invokeSync(to, new Call("Orders", "told"), 30_000);
            if (told.toString().endsWith(" 3")) break;
            Thread.sleep(50);
          }
          return told;
        });
    ExecutorService threads = Executors.newFixedThreadPool(4);
    List<Future<Boolean>> calls = new ArrayList<>();
    for (int i = 0; i < 200; ++i) {
      String text = "call" + i;
      calls.add(
          threads.submit(
              () -> {
                Object got = client.invokeSync(to, new Call("Orders", text), 30_000);
                return got.toString().contains(" got " + text + " ");
              }));
    }
    int right = 0;
    for (Future<Boolean> call : calls) right += call.get() ? 1 : 0;
    System.out.println("parallel: " + right);
    threads.shutdown();
    client.shutdown();
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
