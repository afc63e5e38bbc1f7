package house;

import java.util.stream.IntStream;

/** Sums its arguments. */
public class Main {
    public static void main(String[] args) {
        System.out.println(IntStream.range(0, args.length).map(i -> Integer.parseInt(args[i])).sum());
    }
}
