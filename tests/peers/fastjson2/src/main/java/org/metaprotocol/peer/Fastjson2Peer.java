package org.metaprotocol.peer;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONB;
import com.alibaba.fastjson2.JSONReader;
import com.alibaba.fastjson2.JSONWriter;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;

/**
 * Bodies of Dubbo requests, written and read with fastjson2 as Dubbo's FastJson2ObjectOutput and
 * FastJson2ObjectInput do: each value a document of its own behind its length.
 *
 * <p>{@code write SEED COUNT} prints bodies made up, in hexadecimal. {@code read} takes such lines
 * and prints for each what is in it, as JSON: texts of the head, and of the attachments those that
 * are texts, and the names of the others; or {@code null} where it cannot be read, or is no
 * Unicode.
 */
public final class Fastjson2Peer {
  private static final JSONWriter.Feature[] WRITING = {
    JSONWriter.Feature.WriteClassName,
    JSONWriter.Feature.FieldBased,
    JSONWriter.Feature.ErrorOnNoneSerializable,
    JSONWriter.Feature.ReferenceDetection,
    JSONWriter.Feature.WriteNulls,
    JSONWriter.Feature.NotWriteDefaultValue,
    JSONWriter.Feature.NotWriteHashMapArrayListClassName,
    JSONWriter.Feature.WriteNameAsSymbol
  };
  private static final JSONReader.Feature[] READING = {
    JSONReader.Feature.UseDefaultConstructorAsPossible,
    JSONReader.Feature.ErrorOnNoneSerializable,
    JSONReader.Feature.IgnoreAutoTypeNotMatch,
    JSONReader.Feature.UseNativeObject,
    JSONReader.Feature.FieldBased
  };
  private static final String[] TEXTS = {
    "", "a", "lane", "user", "x-request-id", "zo\u00eb", "\u00ff\u0080", "\u6f22\u5b57", "a\u6f22",
    "\ud83d\ude00", "e\u0301 \ud83d\ude00 \u6f22", "\u0001\u001f", "null", "\"quoted\"", "1"
  };

  private Fastjson2Peer() {}

  public static void main(String[] arguments) throws Exception {
    PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    if (arguments[0].equals("write")) {
      Random random = new Random(Long.parseLong(arguments[1]));
      for (int left = Integer.parseInt(arguments[2]); left > 0; --left) {
        out.println(HexFormat.of().formatHex(body(random)));
      }
    } else {
      BufferedReader in =
          new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        out.println(JSON.toJSONString(read(line)));
      }
    }
    out.flush();
  }

  private static byte[] body(Random random) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    boolean argument = random.nextBoolean();
    append(out, JSONB.toBytes("2.0.2"));
    append(out, JSONB.toBytes("org.example." + text(random)));
    append(out, JSONB.toBytes("1.0." + random.nextInt(3)));
    append(out, JSONB.toBytes("get" + text(random)));
    append(out, JSONB.toBytes(argument ? "Ljava/lang/Object;" : ""));
    if (argument) append(out, JSONB.toBytes(value(random, 2), WRITING));
    Map<String, Object> attachments = new HashMap<>();
    for (int left = random.nextInt(8); left > 0; --left) {
      attachments.put(text(random), random.nextInt(3) == 0 ? value(random, 2) : text(random));
    }
    if (random.nextInt(8) == 0) {
      Object twice = new ArrayList<>(Arrays.asList("one", 2));
      attachments.put("first", twice);
      attachments.put("second", twice);
    }
    append(out, JSONB.toBytes(attachments, WRITING));
    return out.toByteArray();
  }

  private static void append(ByteArrayOutputStream out, byte[] document) {
    out.writeBytes(ByteBuffer.allocate(4).putInt(document.length).array());
    out.writeBytes(document);
  }

  private static String text(Random random) {
    String text = TEXTS[random.nextInt(TEXTS.length)];
    // Lengths are written in several ways: 15, 47 and 2047 are where they change.
    int[] lengths = {1, 1, 1, 1, 15, 16, 47, 48, 300};
    return text.repeat(random.nextInt(60) == 0 ? 2100 : lengths[random.nextInt(lengths.length)]);
  }

  private static Object value(Random random, int depth) {
    switch (random.nextInt(depth > 0 ? 11 : 9)) {
      case 0: return random.nextInt(100) - 50;
      case 1: return random.nextInt();
      case 2: return random.nextLong();
      case 3: return random.nextBoolean();
      case 4: return null;
      case 5: return random.nextDouble();
      case 6: return new BigDecimal(random.nextInt()).movePointLeft(3);
      case 7: return new Date(random.nextInt());
      case 8: return text(random);
      case 9: {
        List<Object> list = new ArrayList<>();
        for (int left = random.nextInt(20); left > 0; --left) list.add(value(random, depth - 1));
        return list;
      }
      default: {
        Map<String, Object> map = new HashMap<>();
        for (int left = random.nextInt(5); left > 0; --left) {
          map.put(text(random), value(random, depth - 1));
        }
        return map;
      }
    }
  }

  private static Map<String, Object> read(String line) {
    try {
      ByteBuffer body = ByteBuffer.wrap(HexFormat.of().parseHex(line));
      Map<String, Object> found = new HashMap<>();
      List<String> head = new ArrayList<>();
      for (int i = 0; i < 5; ++i) head.add(next(body, String.class));
      if (!head.get(4).isEmpty()) next(body, Object.class);
      Map<?, ?> attachments = next(body, Map.class);
      Map<String, Object> texts = new HashMap<>();
      List<String> others = new ArrayList<>();
      for (Map.Entry<?, ?> entry : attachments.entrySet()) {
        if (entry.getKey() instanceof String && entry.getValue() instanceof String) {
          texts.put((String) entry.getKey(), entry.getValue());
        } else {
          others.add(String.valueOf(entry.getKey()));
        }
      }
      // Half a surrogate pair has no form in JSON that can be compared.
      String all = head + "" + texts + others;
      if (!StandardCharsets.UTF_8.newEncoder().canEncode(all)) return null;
      found.put("head", head);
      found.put("texts", texts);
      found.put("others", others);
      return found;
    } catch (Exception | StackOverflowError error) {
      return null;
    }
  }

  private static <T> T next(ByteBuffer body, Class<T> type) {
    int length = body.getInt();
    if (length < 0 || length > body.remaining()) throw new IllegalArgumentException("length");
    byte[] document = new byte[length];
    body.get(document);
    return JSONB.parseObject(document, type, READING);
  }
}
