// A Kafka broker that is its own controller.
//
//   KafkaPeer provider <port>   prints "ready <port>", serves until its input ends; tells clients to come to
//                               the port it was given
package org.metaprotocol.peer;

import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.Properties;
import kafka.server.KafkaConfig;
import kafka.server.KafkaRaftServer;
import kafka.tools.StorageTool;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.utils.Time;

public final class KafkaPeer {
  private static int[] freePorts() throws IOException {
    InetAddress loopback = InetAddress.getByName("127.0.0.1");
    try (ServerSocket one = new ServerSocket(0, 1, loopback);
        ServerSocket two = new ServerSocket(0, 1, loopback)) {
      return new int[] {one.getLocalPort(), two.getLocalPort()};
    }
  }

  private static Properties properties(Path folder, int[] ports, String advertised) {
    Properties properties = new Properties();
    properties.put("process.roles", "broker,controller");
    properties.put("node.id", "1");
    properties.put("controller.quorum.voters", "1@127.0.0.1:" + ports[1]);
    properties.put("controller.listener.names", "CONTROLLER");
    properties.put("inter.broker.listener.name", "INTERNAL");
    properties.put("listener.security.protocol.map", "CLIENTS:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT");
    properties.put(
        "listeners",
        "CLIENTS://127.0.0.1:" + ports[0] + ",INTERNAL://127.0.0.1:0,CONTROLLER://127.0.0.1:" + ports[1]);
    properties.put("advertised.listeners", "CLIENTS://127.0.0.1:" + advertised + ",INTERNAL://127.0.0.1:" + ports[0]);
    properties.put("log.dirs", folder.resolve("logs").toString());
    properties.put("num.partitions", "2");
    properties.put("offsets.topic.num.partitions", "1");
    properties.put("offsets.topic.replication.factor", "1");
    properties.put("transaction.state.log.num.partitions", "1");
    properties.put("transaction.state.log.replication.factor", "1");
    properties.put("transaction.state.log.min.isr", "1");
    properties.put("group.initial.rebalance.delay.ms", "0");
    properties.put("log.cleaner.enable", "false");
    return properties;
  }

  /** A broker on ports that were free a moment ago. */
  private static KafkaRaftServer start(Path folder, int[] ports, String advertised) throws Exception {
    Properties properties = properties(folder, ports, advertised);
    Path file = folder.resolve("server.properties");
    try (OutputStream out = Files.newOutputStream(file)) {
      properties.store(out, null);
    }
    StorageTool.execute(
        new String[] {"format", "--config", file.toString(), "--cluster-id", Uuid.randomUuid().toString()},
        new PrintStream(OutputStream.nullOutputStream()));
    KafkaRaftServer server = new KafkaRaftServer(KafkaConfig.fromProps(properties, false), Time.SYSTEM);
    server.startup();
    return server;
  }

  public static void main(String[] arguments) throws Exception {
    Path folder = Files.createTempDirectory("kafka-peer");
    KafkaRaftServer server = null;
    for (int attempt = 1; server == null; attempt++) {
      int[] ports = freePorts();
      try {
        server = start(Files.createDirectory(folder.resolve("try-" + attempt)), ports, arguments[1]);
        System.out.println("ready " + ports[0]);
      } catch (KafkaException taken) {
        if (attempt == 5) throw taken;
      }
    }
    while (System.in.read() >= 0) {}
    server.shutdown();
    try (var files = Files.walk(folder)) {
      files.sorted(Comparator.reverseOrder()).forEach(each -> each.toFile().delete());
    }
    System.exit(0);
  }

  private KafkaPeer() {}
}
