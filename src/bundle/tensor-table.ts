import { type Static, type TSchema, Type } from "typebox";

const BYTES = { float32: 4, float16: 2, bfloat16: 2 } as const;

/** Of tensors in files. */
export const Element = Type.Union([Type.Literal("float32"), Type.Literal("float16"), Type.Literal("bfloat16")]);

/** Schema of a file of tensors, by name. */
export function TensorTable<Dtype extends TSchema>(dtype: Dtype, alignment: number) {
  return Type.Object({
    file: Type.String(),
    tensors: Type.Record(
      Type.String(),
      Type.Object({
        dtype,
        shape: Type.Array(Type.Integer({ minimum: 1 })),
        offset: Type.Integer({ minimum: 0, multipleOf: alignment }),
        bytes: Type.Integer({ minimum: 1 }),
      }),
    ),
  });
}

export interface TensorTable {
  readonly file: string;
  readonly tensors: Readonly<Record<string, TensorEntry>>;
}

export interface TensorEntry {
  readonly dtype: Static<typeof Element>;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly bytes: number;
}

/**
 * The first tensor that does not fill its shape or is not in the file; undefined when all is well.
 *
 * @param fileBytes size of the file
 */
export function tableProblem({ file, tensors }: TensorTable, fileBytes: number): string | undefined {
  for (const [name, { dtype, shape, offset, bytes }] of Object.entries(tensors)) {
    if (bytes !== BYTES[dtype] * countValues(shape))
      return `tensors.${name}: ${bytes} bytes are not [${shape}] of ${dtype}`;
    if (offset + bytes > fileBytes) return `tensors.${name} lies outside ${file}, which has ${fileBytes} bytes`;
  }
  return undefined;
}

/** What is wrong with a tensor that has to be there with so many values; undefined when all is well. */
export function tensorProblem(
  { tensors }: TensorTable,
  name: string,
  values: number,
  dtype: TensorEntry["dtype"],
): string | undefined {
  const tensor = Object.hasOwn(tensors, name) ? tensors[name]! : undefined;
  if (tensor === undefined) return `there is no tensor ${name}`;
  if (tensor.dtype !== dtype) return `tensors.${name} is ${tensor.dtype}, needed is ${dtype}`;
  const actual = countValues(tensor.shape);
  return actual === values ? undefined : `tensors.${name} has ${actual} values, needed are ${values}`;
}

export function countValues(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
