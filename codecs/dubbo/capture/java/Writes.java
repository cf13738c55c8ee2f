// Prints what each serialization of this Dubbo leaves on the wire for writeUTF("refused"), for
// writeByte(2) and for the events null and "R": what codecs/dubbo/reply.cc must write or know.
import java.io.ByteArrayOutputStream;
import org.apache.dubbo.common.URL;
import org.apache.dubbo.common.extension.ExtensionLoader;
import org.apache.dubbo.common.serialize.ObjectOutput;
import org.apache.dubbo.common.serialize.Serialization;

public class Writes {
  interface Step { void on(ObjectOutput out) throws Exception; }

  static String bytes(Serialization serialization, Step step) {
    try {
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      URL url = URL.valueOf("dubbo://127.0.0.1:1");
      ObjectOutput out = serialization.serialize(url, bytes);
      step.on(out);
      out.flushBuffer();
      StringBuilder hex = new StringBuilder();
      for (byte b : bytes.toByteArray()) hex.append(String.format("%02x", b));
      return hex.toString();
    } catch (Throwable t) {
      return "none";
    }
  }

  public static void main(String[] args) throws Exception {
    for (String name : args) {
      Serialization serialization;
      try {
        serialization = ExtensionLoader.getExtensionLoader(Serialization.class).getExtension(name);
      } catch (Throwable t) {
        System.out.println("# " + name + ": " + t);
        continue;
      }
      System.out.println(serialization.getContentTypeId() + " " + name
          + " " + bytes(serialization, out -> out.writeUTF("refused"))
          + " " + bytes(serialization, out -> out.writeByte((byte) 2))
          + " " + bytes(serialization, out -> out.writeObject(null))
          + " " + bytes(serialization, out -> out.writeObject("R")));
    }
  }
}
