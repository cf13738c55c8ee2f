// A broker of RocketMQ, and its producer and consumers.
//
//   RocketmqPeer provider <version>          prints "ready <port>", serves until its input ends
//   RocketmqPeer consumer <port> <address>   sends and receives, prints "<what>: <result>"
//
// Heads are in JSON but with -Drocketmq.serialize.type=ROCKETMQ.
//
// Clients learn from a name server where brokers are. The consumer brings one of its own, on RocketMQ's
// own server, that knows one broker: where it was told.
package org.metaprotocol.peer;

import io.netty.channel.ChannelHandlerContext;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.broker.BrokerController;
import org.apache.rocketmq.client.consumer.AckCallback;
import org.apache.rocketmq.client.consumer.AckResult;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PopCallback;
import org.apache.rocketmq.client.consumer.PopResult;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.constant.ConsumeInitMode;
import org.apache.rocketmq.common.constant.PermName;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.netty.NettyRemotingServer;
import org.apache.rocketmq.remoting.netty.NettyRequestProcessor;
import org.apache.rocketmq.remoting.netty.NettyServerConfig;
import org.apache.rocketmq.remoting.netty.NettySystemConfig;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.body.ConsumerRunningInfo;
import org.apache.rocketmq.remoting.protocol.header.AckMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.header.PopMessageRequestHeader;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.route.QueueData;
import org.apache.rocketmq.remoting.protocol.route.TopicRouteData;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.ha.DefaultHAService;

public final class RocketmqPeer {
  private static final int QUEUES = 2;

  // --- broker

  /** The broker has no replicas, and listens for none: it would do so on every address. */
  public static final class NoReplicas extends DefaultHAService {
    @Override
    public void start() {}

    @Override
    public void shutdown() {}
  }

  private static BrokerController broker(Path folder) throws Exception {
    BrokerConfig config = new BrokerConfig();
    config.setBrokerIP1("127.0.0.1");
    config.setBrokerName("broker");
    config.setAutoCreateTopicEnable(true);
    config.setDefaultTopicQueueNums(QUEUES);
    config.setBrokerFastFailureEnable(false); // it refuses messages that have waited for 200 ms
    NettyServerConfig server = new NettyServerConfig();
    server.setBindAddress("127.0.0.1");
    server.setListenPort(0);
    MessageStoreConfig store = new MessageStoreConfig();
    store.setStorePathRootDir(folder.toString());
    store.setStorePathCommitLog(folder.resolve("commitlog").toString());
    store.setMappedFileSizeCommitLog(8 << 20);
    store.setMappedFileSizeConsumeQueue(20 * 1000);
    store.setMaxHashSlotNum(100);
    store.setMaxIndexNum(1000);
    store.setMappedFileSizeTimerLog(1 << 20); // its wheel is what POP needs
    store.setOsPageCacheBusyTimeOutMills(60_000); // or it refuses messages after a slow write
    BrokerController broker = new BrokerController(config, server, new NettyClientConfig(), store);
    if (!broker.initialize()) throw new IllegalStateException("the broker cannot be initialized");
    broker.start();
    return broker;
  }

  private static void provider() throws Exception {
    Path folder = Files.createTempDirectory("rocketmq-peer");
    try {
      BrokerController broker = broker(folder);
      System.out.println("ready " + broker.getRemotingServer().localListenPort());
      while (System.in.read() >= 0) {}
      broker.shutdown();
    } finally {
      try (var files = Files.walk(folder)) {
        files.sorted(Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
      }
    }
    System.exit(0);
  }

  // --- name server

  private static NettyRemotingServer nameServer(String broker) {
    NettyServerConfig config = new NettyServerConfig();
    config.setBindAddress("127.0.0.1");
    config.setListenPort(0);
    NettyRemotingServer server = new NettyRemotingServer(config);
    server.registerDefaultProcessor(
        new NettyRequestProcessor() {
          @Override
          public RemotingCommand processRequest(ChannelHandlerContext context, RemotingCommand request) {
            RemotingCommand answer = RemotingCommand.createResponseCommand(ResponseCode.SUCCESS, null);
            answer.setBody(route(broker).encode());
            return answer;
          }

          @Override
          public boolean rejectRequest() {
            return false;
          }
        },
        Executors.newSingleThreadExecutor());
    server.start();
    return server;
  }

  private static TopicRouteData route(String broker) {
    HashMap<Long, String> addresses = new HashMap<>();
    addresses.put(0L, broker);
    QueueData queues = new QueueData();
    queues.setBrokerName("broker");
    queues.setReadQueueNums(QUEUES);
    queues.setWriteQueueNums(QUEUES);
    queues.setPerm(PermName.PERM_READ | PermName.PERM_WRITE);
    TopicRouteData route = new TopicRouteData();
    route.setBrokerDatas(List.of(new BrokerData("cluster", "broker", addresses)));
    route.setQueueDatas(List.of(queues));
    return route;
  }

  // --- clients

  private static void report(String what, Callable<Object> call) {
    String result;
    try {
      result = String.valueOf(call.call());
    } catch (Exception e) {
      Throwable cause = e;
      while (cause.getCause() != null) cause = cause.getCause();
      result = cause.getClass().getSimpleName() + " " + String.valueOf(cause.getMessage()).replace('\n', ' ');
    }
    System.out.println(what + ": " + result);
  }

  private static Message message(String topic, String text) {
    return new Message(topic, text.getBytes(StandardCharsets.UTF_8));
  }

  /** Reads a topic from its beginning until there are so many messages, or half a minute is over. */
  private static List<String> read(String nameServer, String topic, int count) throws Exception {
    DefaultLitePullConsumer consumer = new DefaultLitePullConsumer("readers-" + topic);
    consumer.setNamesrvAddr(nameServer);
    consumer.setVipChannelEnabled(false);
    consumer.setMqClientApiTimeout(30_000);
    consumer.setAutoCommit(false);
    // Not by a seek: it interrupts a pull under way, whose messages are lost or come twice, or whose
    // connection is closed, and with it whatever else waits there.
    consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
    consumer.start();
    try {
      List<MessageQueue> queues = new ArrayList<>();
      for (int i = 0; i < QUEUES; i++) queues.add(new MessageQueue(topic, "broker", i));
      consumer.assign(queues);
      List<String> texts = new ArrayList<>();
      long end = System.nanoTime() + 30_000_000_000L;
      while (texts.size() < count && System.nanoTime() < end) {
        for (MessageExt message : consumer.poll(200)) {
          texts.add(new String(message.getBody(), StandardCharsets.UTF_8));
        }
      }
      texts.sort(null);
      return texts;
    } finally {
      consumer.shutdown();
    }
  }

  /** A consumer that waits at the broker, which answers when there is something. */
  private static DefaultMQPushConsumer listen(String nameServer, Set<String> received) throws Exception {
    return listen(nameServer, received, "alone");
  }

  /** `name`: what tells it from others of its group in this process. */
  private static DefaultMQPushConsumer listen(String nameServer, Set<String> received, String name)
      throws Exception {
    DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("listeners");
    consumer.setMqClientApiTimeout(30_000);
    consumer.setNamesrvAddr(nameServer);
    consumer.setVipChannelEnabled(false);
    consumer.setInstanceName(name);
    consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
    consumer.subscribe("Pushed", "*");
    consumer.registerMessageListener(
        (MessageListenerConcurrently)
            (messages, context) -> {
              for (MessageExt message : messages) {
                received.add(new String(message.getBody(), StandardCharsets.UTF_8));
              }
              return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
    consumer.start();
    return consumer;
  }

  /**
   * What the broker says of itself: that another consumer of the group has come, and the question what
   * the consumer is doing, which it answers. Clients look for others of their group by themselves only
   * every 20 seconds, which is put off here.
   */
  private static String toldByBroker(String nameServer, String broker) throws Exception {
    DefaultMQPushConsumer first = listen(nameServer, ConcurrentHashMap.newKeySet(), "first");
    try {
      long end = System.nanoTime() + 60_000_000_000L;
      while (queuesOf(first) < QUEUES && System.nanoTime() < end) Thread.sleep(20);
      int before = queuesOf(first);
      DefaultMQPushConsumer second = listen(nameServer, ConcurrentHashMap.newKeySet(), "second");
      try {
        while (queuesOf(first) == QUEUES && System.nanoTime() < end) Thread.sleep(20);
        MQClientAPIImpl api =
            second.getDefaultMQPushConsumerImpl().getmQClientFactory().getMQClientAPIImpl();
        ConsumerRunningInfo info =
            api.getConsumerRunningInfo(
                broker,
                "listeners",
                first.getDefaultMQPushConsumerImpl().getmQClientFactory().getClientId(),
                false,
                30_000);
        return before + " then " + queuesOf(first) + ", doing " + info.getSubscriptionSet().size();
      } finally {
        second.shutdown();
      }
    } finally {
      first.shutdown();
    }
  }

  private static int queuesOf(DefaultMQPushConsumer consumer) {
    return (int)
        consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
            .filter(queue -> queue.getTopic().equals("Pushed"))
            .count();
  }

  /** Takes a message as consumers in POP mode do, and says that it is done with. */
  private static String pop(DefaultMQProducer producer, String broker, String topic) throws Exception {
    MQClientAPIImpl api = producer.getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl();
    PopMessageRequestHeader header = new PopMessageRequestHeader();
    header.setConsumerGroup("poppers");
    header.setTopic(topic);
    header.setQueueId(-1);
    header.setMaxMsgNums(8);
    header.setInvisibleTime(60_000);
    header.setPollTime(20_000);
    header.setBornTime(System.currentTimeMillis());
    header.setInitMode(ConsumeInitMode.MIN);
    CompletableFuture<PopResult> popped = new CompletableFuture<>();
    api.popMessageAsync(
        "broker",
        broker,
        header,
        30_000,
        new PopCallback() {
          @Override
          public void onSuccess(PopResult result) {
            popped.complete(result);
          }

          @Override
          public void onException(Throwable problem) {
            popped.completeExceptionally(problem);
          }
        });
    List<String> done = new ArrayList<>();
    for (MessageExt message : popped.get(40, TimeUnit.SECONDS).getMsgFoundList()) {
      String handle = message.getProperty(MessageConst.PROPERTY_POP_CK);
      AckMessageRequestHeader ack = new AckMessageRequestHeader();
      ack.setConsumerGroup("poppers");
      ack.setTopic(topic);
      ack.setExtraInfo(handle);
      ack.setQueueId(message.getQueueId());
      ack.setOffset(message.getQueueOffset());
      CompletableFuture<AckResult> acknowledged = new CompletableFuture<>();
      api.ackMessageAsync(
          broker,
          30_000,
          new AckCallback() {
            @Override
            public void onSuccess(AckResult result) {
              acknowledged.complete(result);
            }

            @Override
            public void onException(Throwable problem) {
              acknowledged.completeExceptionally(problem);
            }
          },
          ack);
      String text = new String(message.getBody(), StandardCharsets.UTF_8);
      done.add(text + " " + acknowledged.get(40, TimeUnit.SECONDS).getStatus());
    }
    return String.join(", ", done);
  }

  private static void consumer(String broker) throws Exception {
    NettyRemotingServer names = nameServer(broker);
    String nameServer = "127.0.0.1:" + names.localListenPort();
    DefaultMQProducer producer = new DefaultMQProducer("senders");
    producer.setNamesrvAddr(nameServer);
    producer.setVipChannelEnabled(false);
    producer.setSendMsgTimeout(30_000);
    producer.setMqClientApiTimeout(30_000);
    producer.setRetryTimesWhenSendFailed(0);
    producer.start();
    Set<String> pushed = ConcurrentHashMap.newKeySet();
    report("send", () -> producer.send(message("Orders", "one")).getSendStatus());
    report("alias", () -> producer.send(message("Alias", "two")).getSendStatus());
    report("retired", () -> producer.send(message("Retired", "three")).getSendStatus());
    report(
        "oneway",
        () -> {
          producer.sendOneway(message("Orders", "four"));
          return "sent";
        });
    report("orders", () -> String.join(" ", read(nameServer, "Orders", 3)));
    report(
        "large",
        () -> {
          String text = "x".repeat(1_000_000);
          producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
          producer.send(message("Large", text));
          return read(nameServer, "Large", 1).equals(List.of(text));
        });
    report(
        "many",
        () -> {
          ExecutorService threads = Executors.newFixedThreadPool(8);
          List<Future<Object>> sent = new ArrayList<>();
          Set<String> expected = new HashSet<>();
          for (int i = 0; i < 200; i++) {
            String text = "message " + i;
            expected.add(text);
            sent.add(threads.submit(() -> producer.send(message("Many", text)).getSendStatus()));
          }
          for (Future<Object> result : sent) result.get();
          threads.shutdown();
          return expected.equals(new HashSet<>(read(nameServer, "Many", 200)));
        });
    report(
        "pushed",
        () -> {
          producer.send(message("Pushed", "before"));
          DefaultMQPushConsumer listener = listen(nameServer, pushed);
          try {
            long end = System.nanoTime() + 30_000_000_000L;
            while (!pushed.contains("before") && System.nanoTime() < end) Thread.sleep(20);
            producer.send(message("Pushed", "while waiting"));
            while (pushed.size() < 2 && System.nanoTime() < end) Thread.sleep(20);
            return pushed.size();
          } finally {
            listener.shutdown();
          }
        });
    report("told", () -> toldByBroker(nameServer, broker));
    producer.send(message("Popped", "pop me"));
    report("popped", () -> pop(producer, broker, "Popped"));
    producer.shutdown();
    names.shutdown();
    System.exit(0);
  }

  public static void main(String[] arguments) throws Exception {
    // Only what the broker says makes consumers balance anew, once they have begun.
    System.setProperty("rocketmq.client.rebalance.waitInterval", "600000");
    System.setProperty(NettySystemConfig.COM_ROCKETMQ_REMOTING_CLIENT_CONNECT_TIMEOUT, "30000");
    if (arguments[0].equals("provider")) {
      provider();
    } else {
      consumer(arguments[2] + ":" + arguments[1]);
    }
  }

  private RocketmqPeer() {}
}
