// A Dubbo provider and consumer on the Java reference implementation, without any registry.
//
//   DubboPeer provider <version>          prints "ready <port>", serves until its input ends
//   DubboPeer consumer <port> <version>   makes one call of each kind, prints "<what>: <result>"
//   DubboPeer load <port> <version> <ms>  calls from 20 threads for that long, without retries;
//                                         prints "calls: <n>", "lost: <n>" and some "error: <text>"
//   DubboPeer listen <port> <version>     two consumers that the provider calls back; prints what each
//                                         was asked and what came of its answer
package org.metaprotocol.peer;

import java.io.Serializable;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.dubbo.common.URL;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ArgumentConfig;
import org.apache.dubbo.config.MethodConfig;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.ServiceConfig;
import org.apache.dubbo.remoting.ChannelHandler;
import org.apache.dubbo.remoting.Client;
import org.apache.dubbo.remoting.RemotingException;
import org.apache.dubbo.remoting.RemotingServer;
import org.apache.dubbo.remoting.transport.netty4.NettyClient;
import org.apache.dubbo.remoting.transport.netty4.NettyServer;
import org.apache.dubbo.remoting.transport.netty4.NettyTransporter;
import org.apache.dubbo.rpc.RpcContext;

public final class DubboPeer {
  public interface Greeter {
    String greet(String name);

    long add(long left, int right);

    Map<String, Object> describe(Thing thing);

    Thing copy(Thing thing);

    String attachment(String key);

    String fail(String message);

    String nothing();

    void note(String text);

    int notes();

    /** From now on `listener` is asked what comes for that name. */
    String listen(String name, Listener listener);

    /** What the listener of that name answers. */
    String ask(String name, String question);
  }

  /** Lives in the consumer; the provider calls it. */
  public interface Listener {
    String answer(String question);
  }

  private static final String SERIALIZATION = System.getProperty("serialization", "hessian2");

  // What a registry would tell of the provider.
  private static final String CALLS_BACK = "&connections=1&listen.1.callback=true";

  public enum Colour {
    RED,
    GREEN
  }

  /** A value object with one field of each kind that serialization treats differently. */
  public static class Thing implements Serializable {
    public String name;
    public int small;
    public long large;
    public double ratio;
    public boolean flag;
    public byte[] bytes;
    public Colour colour;
    public List<String> words = new ArrayList<>();
    public Map<String, Long> counts = new HashMap<>();
    public Thing self;
  }

  /** The application's own exception, which consumers know too. */
  public static class GreeterException extends RuntimeException {
    public GreeterException(String message) {
      super(message);
    }
  }

  private static final class Implementation implements Greeter {
    private final String version;
    private final Map<String, Listener> listeners = new ConcurrentHashMap<>();
    private int notes;

    Implementation(String version) {
      this.version = version;
    }

    public String greet(String name) {
      RpcContext.getServerContext().setAttachment("provider-version", version);
      return version + " greets " + name;
    }

    public long add(long left, int right) {
      return left + right;
    }

    public Map<String, Object> describe(Thing thing) {
      Map<String, Object> fields = new TreeMap<>();
      fields.put("name", thing.name);
      fields.put("small", thing.small);
      fields.put("large", thing.large);
      fields.put("ratio", thing.ratio);
      fields.put("words", thing.words);
      fields.put("cyclic", thing.self == thing);
      return fields;
    }

    public Thing copy(Thing thing) {
      return thing;
    }

    public String attachment(String key) {
      return String.valueOf(RpcContext.getContext().getAttachment(key));
    }

    public String fail(String message) {
      throw new GreeterException(message);
    }

    public String nothing() {
      return null;
    }

    public synchronized void note(String text) {
      notes++;
    }

    public synchronized int notes() {
      return notes;
    }

    public String listen(String name, Listener listener) {
      listeners.put(name, listener);
      return listener.answer("welcome");
    }

    public String ask(String name, String question) {
      return listeners.get(name).answer(question);
    }
  }

  /** Told to use loopback, Dubbo listens on all interfaces and connects to another; not so here. */
  public static class LoopbackTransporter extends NettyTransporter {
    @Override
    public RemotingServer bind(URL url, ChannelHandler handler) throws RemotingException {
      return new NettyServer(url, handler) {
        @Override
        public InetSocketAddress getBindAddress() {
          return new InetSocketAddress("127.0.0.1", super.getBindAddress().getPort());
        }
      };
    }

    @Override
    public Client connect(URL url, ChannelHandler handler) throws RemotingException {
      return new NettyClient(url, handler) {
        @Override
        public InetSocketAddress getConnectAddress() {
          return new InetSocketAddress(getUrl().getHost(), getUrl().getPort());
        }
      };
    }
  }

  private static ApplicationConfig application(String name) {
    ApplicationConfig application = new ApplicationConfig(name);
    application.setQosEnable(false);
    return application;
  }

  private static void provide(String version) throws Exception {
    int port;
    try (ServerSocket free = new ServerSocket(0)) {
      port = free.getLocalPort();
    }
    ProtocolConfig protocol = new ProtocolConfig("dubbo", port);
    protocol.setServer("loopback");
    protocol.setSerialization(SERIALIZATION);
    ServiceConfig<Greeter> service = new ServiceConfig<>();
    service.setApplication(application("provider"));
    service.setRegistry(new RegistryConfig("N/A"));
    service.setProtocol(protocol);
    service.setInterface(Greeter.class);
    service.setVersion(version);
    ArgumentConfig callback = new ArgumentConfig();
    callback.setIndex(1);
    callback.setCallback(true);
    MethodConfig listen = new MethodConfig();
    listen.setName("listen");
    listen.setArguments(List.of(callback));
    service.setMethods(List.of(listen));
    service.setRef(new Implementation(version));
    service.export();
    System.out.println("ready " + port);
    System.out.flush();
    while (System.in.read() >= 0) {
      // until the parent closes our input
    }
  }

  private static Greeter greeter(int port, String version) {
    return greeter(port, version, "");
  }

  private static Greeter greeter(int port, String version, String parameters) {
    ReferenceConfig<Greeter> reference = new ReferenceConfig<>();
    reference.setApplication(application("consumer"));
    reference.setRegistry(new RegistryConfig("N/A"));
    reference.setInterface(Greeter.class);
    reference.setVersion(version);
    reference.setUrl(
        "dubbo://127.0.0.1:" + port + "/" + Greeter.class.getName()
            + "?serialization=" + SERIALIZATION + "&client=loopback" + parameters);
    reference.setTimeout(30_000);
    reference.setRetries(0);
    reference.setCheck(false);
    MethodConfig oneWay = new MethodConfig();
    oneWay.setName("note");
    oneWay.setReturn(false);
    reference.setMethods(List.of(oneWay));
    return reference.get();
  }

  private static void listen(int port, String version) throws Exception {
    // A connection each.
    Greeter one = greeter(port, version, CALLS_BACK);
    Greeter two = greeter(port, version, CALLS_BACK);
    print("one", one.listen("one", question -> "one says " + question));
    print("two", two.listen("two", question -> "two says " + question + " " + "x".repeat(100_000)).length());
    Thread.sleep(4_000);  // longer than Envoy keeps what nobody uses
    print("by-one", one.ask("two", "hello").substring(0, 14));
    print("by-two", two.ask("one", "Jürgen"));
    ConcurrentLinkedQueue<String> answers = new ConcurrentLinkedQueue<>();
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < 20; i++) {
      String question = "question " + i;
      threads.add(new Thread(() -> {
        if (one.ask("one", question).equals("one says " + question)) {
          answers.add(question);
        }
      }));
    }
    for (Thread thread : threads) {
      thread.start();
    }
    for (Thread thread : threads) {
      thread.join();
    }
    print("at-once", answers.size());
    System.exit(0);
  }

  private static void load(int port, String version, long milliseconds) throws Exception {
    Greeter greeter = greeter(port, version);
    AtomicInteger calls = new AtomicInteger();
    ConcurrentLinkedQueue<String> errors = new ConcurrentLinkedQueue<>();
    long end = System.currentTimeMillis() + milliseconds;
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < 20; i++) {
      Thread thread = new Thread(() -> {
        while (System.currentTimeMillis() < end) {
          calls.incrementAndGet();
          try {
            greeter.add(1, 2);
            Thread.sleep(1);
          } catch (Throwable error) {
            errors.add(firstLine(error));
          }
        }
      });
      thread.start();
      threads.add(thread);
    }
    for (Thread thread : threads) {
      thread.join();
    }
    print("calls", calls.get());
    print("lost", errors.size());
    errors.stream().distinct().limit(5).forEach(error -> print("error", error));
    System.exit(0);
  }

  private static void consume(int port, String version) throws Exception {
    Greeter greeter = greeter(port, version);

    print("greet", greeter.greet("Jürgen 😀"));
    print("add", greeter.add(1L << 40, 2));
    RpcContext.getContext().setAttachment("trace", "abc");
    print("attachment", greeter.attachment("trace"));
    Thing thing = new Thing();
    thing.name = "thing";
    thing.small = -7;
    thing.large = 1L << 50;
    thing.ratio = 0.25;
    thing.flag = true;
    thing.bytes = new byte[100_000];
    thing.colour = Colour.GREEN;
    thing.words = new ArrayList<>(List.of("a", "b"));
    thing.counts = new HashMap<>(Map.of("a", 1L));
    thing.self = thing;
    print("describe", new TreeMap<>(greeter.describe(thing)));
    Thing copy = greeter.copy(thing);
    print("copy", copy.name + " " + copy.large + " " + copy.bytes.length + " " + copy.colour + " "
        + copy.words + " " + copy.counts + " " + (copy.self == copy));
    try {
      print("fail", greeter.fail("on purpose"));
    } catch (Throwable error) {
      print("fail", error.getClass().getSimpleName() + " " + firstLine(error));
    }
    try {
      print("nothing", greeter.nothing());
    } catch (Throwable error) {
      print("nothing", error.getClass().getSimpleName() + " " + firstLine(error));
    }
    int before = greeter.notes();
    for (int i = 0; i < 3; i++) {
      greeter.note("note " + i);
    }
    int notes = 0;
    for (int i = 0; i < 100 && notes < 3; i++) {
      Thread.sleep(20);
      notes = greeter.notes() - before;
    }
    print("notes", notes);
    System.exit(0);
  }

  private static String firstLine(Throwable error) {
    return String.valueOf(error.getMessage()).split("\n")[0];
  }

  private static void print(String what, Object result) {
    System.out.println(what + ": " + result);
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length == 2 && arguments[0].equals("provider")) {
      provide(arguments[1]);
    } else if (arguments.length == 3 && arguments[0].equals("consumer")) {
      consume(Integer.parseInt(arguments[1]), arguments[2]);
    } else if (arguments.length == 3 && arguments[0].equals("listen")) {
      listen(Integer.parseInt(arguments[1]), arguments[2]);
    } else if (arguments.length == 4 && arguments[0].equals("load")) {
      load(Integer.parseInt(arguments[1]), arguments[2], Long.parseLong(arguments[3]));
    } else {
      System.err.println(
          "usage: DubboPeer provider VERSION | consumer PORT VERSION | listen PORT VERSION"
              + " | load PORT VERSION MS");
    }
    System.exit(arguments.length == 0 ? 2 : 0);
  }
}
