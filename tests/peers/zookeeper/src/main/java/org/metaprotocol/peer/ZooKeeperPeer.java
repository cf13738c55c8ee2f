// A ZooKeeper server by itself.
//
//   ZooKeeperPeer provider <version>   prints "ready <port>", serves until its input ends
package org.metaprotocol.peer;

import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.zookeeper.server.NIOServerCnxnFactory;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.apache.zookeeper.server.ZooKeeperServer;

public final class ZooKeeperPeer {
  private static final int TICK_MILLISECONDS = 1000;

  public static void main(String[] arguments) throws Exception {
    Path folder = Files.createTempDirectory("zookeeper-peer");
    ZooKeeperServer server =
        new ZooKeeperServer(folder.resolve("data").toFile(), folder.resolve("log").toFile(), TICK_MILLISECONDS);
    ServerCnxnFactory clients = new NIOServerCnxnFactory();
    clients.configure(new InetSocketAddress("127.0.0.1", 0), 100);
    clients.startup(server);
    System.out.println("ready " + clients.getLocalPort());
    while (System.in.read() >= 0) {
      // until its input ends
    }
    clients.shutdown();
    System.exit(0);
  }
}
