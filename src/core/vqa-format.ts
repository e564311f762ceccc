/** How an image becomes bytes; `scripts/multiscale/vqa/preprocess.py` does the same. */
export interface ImageFormat {
  readonly width: number;
  readonly height: number;
  /** Share of the width and height that is cut off on each side. Range [0, 0.5). */
  readonly crop: number;
  readonly encoding:
    | {
        readonly mode: "pixels";
        /** Values of a channel are the mid-points of so many bins; undefined = all 256. */
        readonly levels: number | undefined;
      }
    | JpegEncoding;
}

/** The image as the file of a JPEG. */
export interface JpegEncoding {
  readonly mode: "jpeg";
  /** 1–95, as libjpeg counts. */
  readonly quality: number;
  /** A restart marker follows every so many blocks; 0 = none. */
  readonly restartBlocks: number;
  /** Not 0: a scan for each component, and every block of 8 × 8 begins at a multiple of so many bytes. */
  readonly blockBytes: number;
}

/** Ids that mark where segments begin and end. They may lie among the bytes: only their positions make them special. */
export interface SegmentIds {
  readonly pad: number;
  readonly end: number;
  readonly startOfText: number;
  readonly startOfImage: number;
}

/** An answer that a model may give, and the id that stands for it. */
export interface AnswerClass {
  readonly text: string;
  readonly id: number;
}

/** How questions about images become sequences; from the manifest of a model that was trained on them. */
export interface VqaFormat {
  /** The order of the segments, the answer last. */
  readonly order: "image_question_answer" | "question_image_question_answer";
  /** Every segment is padded to a multiple of so many ids. */
  readonly align: number;
  readonly maxQuestionBytes: number;
  readonly image: ImageFormat;
  readonly segmentIds: SegmentIds;
  /** At least one; texts and ids are unique. */
  readonly answers: readonly AnswerClass[];
}
