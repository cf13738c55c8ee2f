// Makes one Dubbo version talk to itself, so that what it says can be recorded: exports a service,
// then calls it through another port (the recorder's). Written for the packages of 2.7 and 3.x;
// capture.py renames them for 2.6. Arguments: provider port, recorder port, serialization.
import java.io.Serializable;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.MethodConfig;
import org.apache.dubbo.config.ProtocolConfig;
import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.RegistryConfig;
import org.apache.dubbo.config.ServiceConfig;
import org.apache.dubbo.rpc.RpcContext;
import org.apache.dubbo.rpc.service.GenericService;

public class Capture {
  public enum Colour { RED, GREEN }

  public static class Node implements Serializable {
    private static final long serialVersionUID = 1L;
    public String name;
    public double weight;
    public Colour colour = Colour.GREEN;
    public Date born = new Date(1234567890123L);
    public byte[] blob = {1, 2, 3};
    public Node next;
    public Node() {}
    public Node(String name, double weight, Node next) {
      this.name = name;
      this.weight = weight;
      this.next = next;
    }
  }

  public static class Refused extends Exception {
    private static final long serialVersionUID = 1L;
    public int code = 7;
    public Refused() {}
    public Refused(String message) { super(message); }
  }

  public interface DemoService {
    String echo(String text);
    void nothing();
    Node mix(Map<String, Object> map, List<Node> nodes, Date date, double number, byte[] bytes,
             long big, int[] ints, String[] names, Boolean flag, Node none);
    int refuse(String why) throws Refused;
    void tell(String text);
    List<Object> scalars(List<Object> values);
  }

  public static class Demo implements DemoService {
    public String echo(String text) {
      RpcContext.getServerContext().setAttachment("served-by", "demo-é😀");
      return text;
    }
    public void nothing() {}
    public Node mix(Map<String, Object> map, List<Node> nodes, Date date, double number,
                    byte[] bytes, long big, int[] ints, String[] names, Boolean flag, Node none) {
      return nodes.get(0);
    }
    public int refuse(String why) throws Refused { throw new Refused(why); }
    public void tell(String text) {}
    public List<Object> scalars(List<Object> values) { return values; }
  }

  static String repeat(String unit, int times) {
    StringBuilder out = new StringBuilder();
    for (int i = 0; i < times; i++) out.append(unit);
    return out.toString();
  }

  static <T> ReferenceConfig<T> reference(ApplicationConfig application, int port, String path,
                                          String serialization) {
    ReferenceConfig<T> config = new ReferenceConfig<T>();
    config.setApplication(application);
    config.setUrl("dubbo://127.0.0.1:" + port + "/" + path + "?serialization=" + serialization
        + "&prefer.serialization=" + serialization + "&heartbeat=700");
    config.setGroup("blue");
    config.setVersion("1.2.3");
    config.setTimeout(5000);
    config.setCheck(false);
    config.setRetries(0);
    config.setInjvm(false);
    return config;
  }

  static void attempt(String what, Runnable call) {
    RpcContext.getContext().setAttachment("user", "zoë 😀");
    RpcContext.getContext().setAttachment("x-long", repeat("v", 40));
    try {
      call.run();
      System.out.println(what + ": answered");
    } catch (Throwable t) {
      String text = String.valueOf(t);
      System.out.println(what + ": " + text.substring(0, Math.min(200, text.length())));
    }
  }

  public static void main(String[] args) throws Exception {
    final int providerPort = Integer.parseInt(args[0]);
    final int recorderPort = Integer.parseInt(args[1]);
    final String serialization = args[2];
    System.setProperty("dubbo.application.qos.enable", "false");
    System.setProperty("dubbo.application.qos-enable", "false");
    System.setProperty("dubbo.qos.enable", "false");
    System.setProperty("dubbo.application.logger", "jdk");
    System.setProperty("dubbo.service.shutdown.wait", "500");

    ApplicationConfig application = new ApplicationConfig("capture");
    ProtocolConfig protocol = new ProtocolConfig("dubbo", providerPort);
    protocol.setSerialization(serialization);
    protocol.setHost("127.0.0.1");
    ServiceConfig<DemoService> service = new ServiceConfig<DemoService>();
    service.setApplication(application);
    service.setRegistry(new RegistryConfig("N/A"));
    service.setProtocol(protocol);
    service.setInterface(DemoService.class);
    service.setGroup("blue");
    service.setVersion("1.2.3");
    service.setRef(new Demo());
    service.export();

    ReferenceConfig<DemoService> config =
        reference(application, recorderPort, DemoService.class.getName(), serialization);
    config.setInterface(DemoService.class);
    MethodConfig tell = new MethodConfig();
    tell.setName("tell");
    tell.setReturn(false);
    config.setMethods(Arrays.asList(tell));
    final DemoService demo = config.get();

    attempt("echo", () -> demo.echo("hello"));
    attempt("unicode", () -> demo.echo("Grüße, 世界, 😀 and a lone \ud83d half"));
    attempt("long", () -> demo.echo(repeat("0123456789abcde😀", 2100)));
    attempt("nothing", () -> demo.nothing());
    attempt("refuse", () -> {
      try {
        demo.refuse("not today");
      } catch (Refused e) {
        throw new RuntimeException(e);
      }
    });
    attempt("tell", () -> demo.tell("one way"));
    attempt("mix", () -> {
      Node a = new Node("a", 1.5, null);
      Node b = new Node("b", -3.25e100, a);
      a.next = b;  // a cycle
      List<Node> nodes = new ArrayList<Node>(Arrays.asList(a, b, a, null));
      Map<String, Object> map = new LinkedHashMap<String, Object>();
      map.put("list", Arrays.asList(1, 2L, 3.0, "four"));
      map.put("same", nodes);
      map.put("tree", new TreeMap<String, Object>(map));
      map.put("null", null);
      demo.mix(map, nodes, new Date(0), 0.1, new byte[9000], Long.MIN_VALUE,
          new int[] {1, -1, 1 << 20, Integer.MIN_VALUE}, new String[] {"x", null, "ü"}, true, null);
    });
    attempt("scalars", () -> demo.scalars(new ArrayList<Object>(Arrays.<Object>asList(
        0, -16, 47, 48, -2048, 2047, 2048, -262144, 262143, 262144, 0L, -8L, 15L, 16L, -2048L, 2047L,
        2048L, -262144L, 262143L, 1L << 31, 1L << 40, 0.0, 1.0, 127.0, -32768.0, 0.001, 12.25, 1e300,
        true, false, null, new Date(60000L * 28000000L), new Date(1), "", repeat("s", 31),
        repeat("s", 32), repeat("s", 1023), repeat("s", 1024), new byte[0], new byte[15],
        new byte[16], new byte[1023], new byte[1024], Colour.RED, new HashMap<String, String>(),
        new ArrayList<String>()))));

    ReferenceConfig<GenericService> generic =
        reference(application, recorderPort, DemoService.class.getName(), serialization);
    generic.setInterface(DemoService.class.getName());
    generic.setGeneric("true");
    final GenericService anything = generic.get();
    attempt("generic", () -> anything.$invoke("echo", new String[] {"java.lang.String"},
                                              new Object[] {"generically"}));

    ReferenceConfig<GenericService> lost =
        reference(application, recorderPort, "no.such.Service", serialization);
    lost.setInterface("no.such.Service");
    lost.setGeneric("true");
    final GenericService nobody = lost.get();
    attempt("missing", () -> nobody.$invoke("anything", new String[0], new Object[0]));

    Thread.sleep(2500);  // heartbeats
    service.unexport();
    Runtime.getRuntime().exit(0);  // the provider says that it goes
  }
}
